"""The network of the post and its heads, center loss, batches of pairs, and an optimizer of ours.

The file needs keras and numpy alone: copy it whole, or take one function out of it. The
augmentations are in augment.py.

A network is made of parts that are trained in stages. The stem is frozen: uint8 images (batch,
size, size, 3) to feature maps. The tail is the last blocks: feature maps to one vector per image.
The heads: a vector to probabilities (batch, num_classes). `build_training_model` joins those parts
that a stage needs.

Post: https://kexue.fm/archives/4611
"""

import keras
import numpy as np
from keras import layers, ops

# Where the branches of a block come together again, or where a block ends by pooling.
JOINS = (layers.Add, layers.Concatenate, layers.MaxPooling2D, layers.AveragePooling2D)


# --- Backbone ---
def build_backbone(name="xception", image_size=299, weights="imagenet", blocks=2):
    """A network in two parts, cut below its last `blocks` blocks.

    A block ends where everything that was computed so far passes through one sum, concatenation
    or pooling. Blocks are counted by position, because the names of layers do not tell them apart.

    Args:
        name: a network of keras.applications in lower case, such as "efficientnetv2b0";
            "mobilenetv2-0.35" has a width; "small" is a network of ours; or a function with the
            arguments include_top, weights and input_tensor, whose network scales pixels itself.
        weights: None, "imagenet", or the path of a weights file made without the top.

    Returns:
        The stem, frozen: uint8 images (batch, size, size, 3) to feature maps. The scaling of the
        pixels that the network expects is part of it.
        The tail: these feature maps to vectors (batch, channels). Its batch normalization is
        frozen, everything else can be trained.

    Raises ValueError for an unknown name, and where there are fewer blocks.
    """
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="picture")
    network = whole_network(name, inputs, weights)
    cut = find_cut(network, blocks)
    stem = keras.Model(inputs, cut, name="stem")
    vectors = layers.GlobalAveragePooling2D()(network.output)
    tail = keras.Model(cut, vectors, name="tail")
    stem.trainable = False
    freeze_batch_norm(tail)
    return stem, tail


def whole_network(name, inputs, weights):
    """The network that `build_backbone` cuts in two, without its top."""
    if callable(name):
        return name(include_top=False, weights=weights, input_tensor=inputs)
    if name == "small":
        return small_network(inputs, weights)
    builder, options = find_application(name)
    pixels = scale_pixels(builder, ops.cast(inputs, "float32"))
    return builder(include_top=False, weights=weights, input_tensor=pixels, **options)


def find_application(name):
    """A builder of keras.applications by its name in lower case, and its further arguments."""
    builders = {key.lower(): key for key in dir(keras.applications) if key[0].isupper()}
    name, _, width = name.partition("-")
    if name not in builders:
        raise ValueError(f"no network {name}: there are {', '.join(sorted(builders))}")
    options = {}
    if width:
        options["alpha"] = float(width)
    return getattr(keras.applications, builders[name]), options


def scale_pixels(builder, pixels):
    """Pixels 0 to 255 scaled as the weights of this network of keras.applications expect them."""
    modules = [m for m in vars(keras.applications).values() if hasattr(m, "preprocess_input")]
    for module in modules:
        if builder in vars(module).values():
            return module.preprocess_input(pixels)
    # The module of MobileNetV3 is the only one that does not contain its networks.
    return keras.applications.mobilenet_v3.preprocess_input(pixels)


def find_cut(network, blocks):
    """The tensor that goes into the last `blocks` blocks of a network."""
    operations = network.operations
    last_use = find_last_uses(operations)
    end = len(operations)
    found = 0
    for i in reversed(range(len(operations))):
        if not isinstance(operations[i], JOINS):
            continue
        if any(last_use.get(earlier, 0) > i for earlier in range(i)):
            continue  # A branch leads around it.
        # Two joins in a row, such as a sum and its pooling, end one block, not two.
        if has_convolution(operations[i:end]):
            found += 1
        end = i
        if found == blocks:
            return operations[end].output
    raise ValueError(f"it has {found} blocks to train, not {blocks}")


def find_last_uses(operations):
    """{position of an operation: position of the last operation that takes its output}."""
    position_of = {id(operation.output): i for i, operation in enumerate(operations)}
    last_use = {}
    for i, operation in enumerate(operations):
        for tensor in keras.tree.flatten(operation.input):
            source = position_of.get(id(tensor), i)
            last_use[source] = i
    return last_use


def has_convolution(operations):
    """Whether one of the operations has a kernel of four dimensions."""
    for operation in operations:
        weights = getattr(operation, "weights", ())
        if any(len(weight.shape) == 4 for weight in weights):
            return True
    return False


def freeze_batch_norm(model):
    """BatchNormalization keeps its stored statistics and weights, in training as well.

    Calling the layers with training=False is not enough: inside a model, `fit` overrides it.
    """
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def small_network(inputs, weights=None):
    """Ours: four residual blocks, which learn drawn dogs from scratch in a minute."""
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = convolution(x, 24, 3, strides=2)
    x = layers.ReLU()(x)
    for filters, strides in ((48, 2), (96, 2), (96, 1), (192, 2)):
        shortcut = convolution(x, filters, 1, strides)
        x = convolution(x, filters, 3, strides)
        x = layers.ReLU()(x)
        x = convolution(x, filters, 3)
        x = layers.Add()([x, shortcut])
        x = layers.ReLU()(x)
    model = keras.Model(inputs, x)
    if weights is not None:
        model.load_weights(weights)
    return model


def convolution(x, filters, size, strides=1):
    """A convolution and batch normalization."""
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


# --- Heads and losses ---
def build_heads(feature_dim=2048, num_classes=100, units=64, gated=True, auxiliary=True):
    """The heads of the post: a vector per image to probabilities.

    The main softmax sees a gated linear unit (GLU) of the vector, the auxiliary softmax sees the
    vector itself.

    Returns:
        A model from (batch, feature_dim) to {"main", "auxiliary": probabilities (batch,
        num_classes), "features": what center loss pulls together, (batch, units)}.
    """
    vector = keras.Input((feature_dim,), name="vector")
    features = vector
    if gated:
        gate = layers.Dense(units, "sigmoid", name="gate")(vector)
        features = layers.Dense(units, name="linear")(vector) * gate
    # In float32, whatever the policy for mixed precision says.
    main = layers.Dense(num_classes, "softmax", name="main", dtype="float32")
    outputs = {"main": main(features)}
    if auxiliary:
        softmax = layers.Dense(num_classes, "softmax", name="auxiliary", dtype="float32")
        outputs["auxiliary"] = softmax(vector)
    outputs["features"] = features
    return keras.Model(vector, outputs, name="heads")


def build_training_model(models, centres=None):
    """Models one after the other, the last of them the heads, with what the losses need.

    Keras 3 trains what is trainable when `fit` runs, not what was trainable in `compile`: so
    build and compile anew for each stage.

    Args:
        models: such as (heads,), (tail, heads) or (stem, tail, heads).
        centres: an Embedding with one vector per class, for center loss.

    Returns:
        A model from {"x": inputs of the first model} to {"main", "auxiliary": probabilities}. With
        centres it also takes {"target": classes (batch,)} and gives {"distance": (batch, 1)}, the
        squared distance of the features to the centre of their class. This output is its own
        loss: compile it with `output_is_loss`.
    """
    first = models[0].input
    x = keras.Input(first.shape[1:], dtype=first.dtype, name="x")
    inputs = {"x": x}
    for model in models:
        x = model(x)
    outputs = {name: x[name] for name in ("main", "auxiliary") if name in x}
    if centres is not None:
        inputs["target"] = keras.Input((), dtype="int32", name="target")
        squares = ops.square(x["features"] - centres(inputs["target"]))
        outputs["distance"] = ops.sum(squares, -1, keepdims=True)
    return keras.Model(inputs, outputs)


def output_is_loss(y_true, y_pred):
    """For an output that is a loss already; its targets are dummies."""
    return y_pred


# --- Optimizer of ours ---
@keras.saving.register_keras_serializable("kexue")
class LayerwiseAdam(keras.optimizers.Adam):
    """Adam with a learning rate of its own for each variable.

    Args:
        rates: factors of the learning rate, one per trainable variable; default: 1 for all.
    """

    def __init__(self, learning_rate=1e-3, rates=(), **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.rates = list(rates)

    def update_step(self, gradient, variable, learning_rate):
        rate = 1.0
        if self.rates:
            rate = self.rates[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * rate)

    def get_config(self):
        return {**super().get_config(), "rates": self.rates}


def decaying_adam(model, learning_rate, decay, blocks, num_steps):
    """Adam with a warm-up, a cosine, and a running mean of the weights; early blocks learn slower.

    Args:
        model: of `build_training_model`; it contains a tail of `build_backbone`.
        learning_rate: the highest, which is that of the heads.
        decay: the factor of the learning rate from one block to the block before it.
        blocks: how many blocks the tail has.
        num_steps: of the whole training.
    """
    warmup_steps = num_steps // 20
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, num_steps - warmup_steps),
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )
    rates = layerwise_rates(model, decay, blocks)
    return LayerwiseAdam(schedule, rates, use_ema=True, ema_momentum=0.99)


def layerwise_rates(model, decay, blocks):
    """The factor of the learning rate of each trainable variable of a training model.

    It falls evenly by the positions of the layers in the tail. All other variables have 1.
    """
    rate_of = {}
    for part in model.layers:
        if part.name != "tail":
            continue
        for position, layer in enumerate(part.layers, 1):
            rate = decay ** (blocks * (1 - position / len(part.layers)))
            for variable in layer.trainable_variables:
                rate_of[id(variable)] = rate
    return [rate_of.get(id(variable), 1.0) for variable in model.trainable_variables]


# --- Batches and blend ---
def sample_pairs(labels, rng, num_classes=16, per_class=2):
    """The rows of one batch: distinct classes in proportion to their size, two images of each.

    Center loss needs several images of a class in a batch.

    Args:
        labels: classes (n,) of all samples.
        rng: a NumPy Generator.

    Returns:
        Indices (num_classes * per_class,) into labels; fewer where there are fewer classes.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    num_classes = min(num_classes, len(classes))
    rows = []
    for label in rng.choice(classes, num_classes, replace=False, p=sizes / sizes.sum()):
        members = np.flatnonzero(labels == label)
        rows.extend(rng.choice(members, per_class, replace=len(members) < per_class))
    return np.array(rows)


def choose_blend(main, auxiliary, labels):
    """The fraction of the main prediction in a blend, 0 to 1 by 0.01, that is right most often.

    Of equally good fractions it is the largest. Choose it on validation images.

    Args:
        main, auxiliary: probabilities (n, num_classes) of the two heads.
        labels: classes (n,).
    """
    fractions = np.arange(100, -1, -1) / 100
    accuracies = []
    for fraction in fractions:
        blended = fraction * main + (1 - fraction) * auxiliary
        accuracies.append((blended.argmax(axis=-1) == labels).mean())
    return float(fractions[np.argmax(accuracies)])
