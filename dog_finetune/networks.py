"""What is not the post's: the backbone of drawn dogs, the optimizer of ours, the probe."""

import warnings
from pathlib import Path

import numpy as np

from common.damage import first_line
from common.run import fail, keras, layers


# --- Backbones ---
def build_small(include_top, weights, input_tensor):
    """Four residual blocks, which learn drawn dogs from nothing in a minute."""

    def convolution(x, filters, size=3, strides=1):
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    x = layers.Rescaling(1 / 127.5, offset=-1.0)(input_tensor)
    x = layers.ReLU()(convolution(x, 24, 3, 2))
    for filters, strides in ((48, 2), (96, 2), (96, 1), (192, 2)):
        short = convolution(x, filters, 1, strides)
        x = layers.ReLU()(convolution(x, filters, 3, strides))
        x = layers.ReLU()(layers.Add()([convolution(x, filters), short]))
    model = keras.Model(input_tensor, x)
    if weights is not None:
        model.load_weights(weights)
    return model


def backbone_of(args, build):
    """build() with the settings of a run; what cannot be built or loaded is one line."""
    weights = None if args.weights in ("none", "drawn") else args.weights
    if weights not in (None, "imagenet") and not Path(weights).exists():
        fail(f"--weights {weights}: there is no such file")
    name = build_small if args.backbone == "small" else args.backbone
    try:
        with warnings.catch_warnings():
            # Weights that are only in part those of the network are an error, too.
            warnings.filterwarnings("error", message="Skipping")
            return build(name, args.image_size, weights, args.blocks)
    except Exception as error:  # Of many kinds: an unknown name, no network, another's weights.
        reason = first_line(error)
        fail(
            f"no --backbone {args.backbone} with --weights {args.weights} "
            f"({reason}); --weights PATH takes a file made without the top, "
            "--weights none starts from scratch"
        )


def how(args):
    """For compile: on a CPU, XLA compiles a deep network for minutes and runs it no faster."""
    if args.smoke and "data_parallel" not in args:  # Eager devices may wait for each other.
        return {"run_eagerly": True}  # A few steps take less than to compile them.
    return {"jit_compile": False if keras.backend.backend() == "tensorflow" else "auto"}


# --- Optimizer of ours ---
def layerwise_adam():
    """A registered Adam whose rates[i] scales the steps of the i-th trainable variable."""

    @keras.saving.register_keras_serializable("kexue")
    class LayerwiseAdam(keras.optimizers.Adam):
        def __init__(self, learning_rate=1e-3, rates=(), **keywords):
            super().__init__(learning_rate, **keywords)
            self.rates = list(rates)

        def update_step(self, gradient, variable, learning_rate):
            rate = self.rates[self._get_variable_index(variable)] if self.rates else 1.0
            super().update_step(gradient, variable, learning_rate * rate)

        def get_config(self):
            return super().get_config() | {"rates": self.rates}

    return LayerwiseAdam


def decaying_adam(model, args, num_steps):
    """Adam with a cosine and a running mean of the weights; early blocks learn more slowly.

    The rate falls by the factor --decay from block to block, evenly by the layers' positions.
    """
    scales = {}
    for part in model.layers:
        if part.name == "tail":
            for i, layer in enumerate(part.layers, 1):
                scale = args.decay ** (args.blocks * (1 - i / len(part.layers)))
                scales |= {id(variable): scale for variable in layer.trainable_variables}
    rates = [scales.get(id(variable), 1.0) for variable in model.trainable_variables]
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, num_steps - num_steps // 20),
        warmup_target=args.learning_rate,
        warmup_steps=num_steps // 20,
    )
    return layerwise_adam()(schedule, rates, use_ema=True, ema_momentum=0.99)


# --- Probe ---
def fit_linear_probe(x, y, num_classes, penalty=1e-3):
    """Multinomial logistic regression by L-BFGS: the best that one softmax makes of features.

    Args:
        x: features (n, d). y: classes (n,). penalty: half of it times the sum of the squared
            weights is added to the mean loss, for features centred and of deviation 1 altogether.

    Returns:
        Kernel (d, num_classes) and bias (num_classes,) of a Dense layer on x as it is.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    mean, deviation = x.mean(0), (x - x.mean(0)).std()
    z = np.column_stack([(x - mean) / deviation, np.ones(len(x))]).astype("float32")
    targets = np.eye(num_classes)[y]

    def loss(flat):
        weights = flat.reshape(-1, num_classes)
        log_p = log_softmax(z @ weights, axis=1)
        shrunk = penalty * np.vstack([weights[:-1], np.zeros((1, num_classes))])
        gradient = z.T @ (np.exp(log_p) - targets) / len(x) + shrunk
        return -(targets * log_p).sum() / len(x) + (shrunk * weights).sum() / 2, gradient.ravel()

    start = np.zeros(z.shape[1] * num_classes)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    *kernel, bias = best.reshape(-1, num_classes)
    kernel = np.array(kernel) / deviation
    return kernel, bias - mean @ kernel
