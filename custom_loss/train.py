"""Three custom losses, each in the form of 2017 and in today's: smoothing, triplet, center.

Post:   https://kexue.fm/archives/4493 (2017): label smoothing as a function of (y_true, y_pred),
        a triplet loss as the model's output, class centres in an Embedding. It claims less
        over-confidence, compact classes that serve unseen people, and that the question needs
        an extra Dense. It has no numbers.
Data:   drawn digits (data/glyphs.py) and questions (data/faq.py); --data: mnist.npz, or the word
        mnist, which downloads it; --faq: question<TAB>answer, or FILE.txt, running text.

    python custom_loss/train.py                        # all three
    python custom_loss/train.py --preset full          # more of everything
    python custom_loss/train.py --preset post          # the post's ten epochs
    python custom_loss/train.py --loss smoothing center --data mnist.npz
    python custom_loss/train.py --loss triplet --faq faq.tsv
    python custom_loss/predict.py                      # questions answered, a digit's neighbours

Writes runs/custom_loss/NAME/. Read it from top to bottom: losses and models, data, main.
"""

import argparse
import functools
import hashlib

from common.run import Run, fail, keras, layers, ops, parse_run_args, run_script
from custom_loss.digits import SEEN, load_digits, on_jax, run_digits
from custom_loss.texts import load_texts, run_texts


# --- Label smoothing (needs only keras; copy it) ---
def smoothed_crossentropy(y_true, y_pred, epsilon=0.1):
    """The post's form, a function for compile(loss=...): one number per sample.

    Cross-entropy against a target of which a share `epsilon` is spread over all classes, so
    that a network gains nothing by making its logits ever larger.

    Args:
        y_true: one-hot rows, (batch, classes).
        y_pred: probabilities, (batch, classes).
    """
    logarithms = ops.log(ops.maximum(y_pred, 1e-7))
    right = ops.sum(ops.multiply(y_true, logarithms), -1)
    uniform = ops.mean(logarithms, -1)
    return -(1 - epsilon) * right - epsilon * uniform


def smoothed_crossentropy_class():
    """Today's form: a registered Loss for class numbers and probabilities.

    Call this function, too, before you load a model that was compiled with it.
    """

    @keras.saving.register_keras_serializable("kexue")
    class SmoothedCrossentropy(keras.losses.Loss):
        def __init__(self, epsilon=0.1, name="smoothed_crossentropy", **keywords):
            super().__init__(name=name, **keywords)
            self.epsilon = epsilon

        def call(self, y_true, y_pred):
            num_classes = y_pred.shape[-1]
            y_true = ops.reshape(y_true, ops.shape(y_pred)[:-1])  # Class numbers may be (n, 1).
            one_hot = ops.one_hot(ops.cast(y_true, "int32"), num_classes)
            target = (1 - self.epsilon) * one_hot + self.epsilon / num_classes
            return -ops.sum(target * ops.log(ops.maximum(y_pred, 1e-7)), -1)

        def get_config(self):
            return super().get_config() | {"epsilon": self.epsilon}

    return SmoothedCrossentropy


# --- Triplet loss (needs only keras; copy it) ---
def output_is_loss(y_true, y_pred):
    """For a model whose output is the loss already; the targets are dummies of its shape."""
    return y_pred


def unit_vectors(x):
    """The rows of x at length 1, in float32 whatever the policy; a zero row stays zero."""
    x = ops.cast(x, "float32")
    squares = ops.sum(ops.square(x), -1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, 1e-12))


def build_encoder(vocabulary_size=10_000, embedding_dim=128, units=64):
    """Ids (batch, length), 0 for padding, to vectors (batch, units)."""
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(vocabulary_size, embedding_dim, mask_zero=True)(ids)
    return keras.Model(ids, layers.LSTM(units)(x), name="encoder")


def build_triplet_model(encoder, extra_dense=64, margin=0.1):
    """The post's form: question, right and wrong answer in, the loss of each (batch, 1) out.

    max(0, margin + cosine with the wrong answer - cosine with the right one). Question and
    answers share `encoder`; the question alone goes through one more linear layer, for it is
    not to be encoded as its answer is (None: it is); extra_dense is how many units that has,
    those of the encoder. Compile with output_is_loss, give fit dummy targets.

    Returns:
        The model, and the question and the answer encoder: ids to vectors of length 1.
    """
    names = ("question", "right", "wrong")
    inputs = [keras.Input((None,), dtype="int32", name=name) for name in names]
    question, right, wrong = (encoder(ids) for ids in inputs)
    if extra_dense:
        question = layers.Dense(extra_dense, name="extra_dense")(question)
    question, right, wrong = unit_vectors(question), unit_vectors(right), unit_vectors(wrong)
    difference = ops.sum(question * (wrong - right), -1, keepdims=True)
    model = keras.Model(inputs, ops.relu(margin + difference))
    return model, keras.Model(inputs[0], question), keras.Model(inputs[1], right)


def triplet_model_class():
    """Today's form: a registered Model that takes the wrong answers out of the batch.

    Call this function, too, before you load such a model.
    """

    @keras.saving.register_keras_serializable("kexue")
    class TripletModel(keras.Model):
        """fit((questions, answers)), without targets; no answer may be in a batch twice.

        negatives: "random" compares with the answer of the next row, "hard" with the answer in
        the batch that is nearest to the question but wrong. The metric "active" is the share of
        triplets whose loss is not yet 0.
        """

        def __init__(self, encoder, extra_dense=64, margin=0.1, negatives="random", **keywords):
            super().__init__(**keywords)
            self.encoder, self.extra_dense = encoder, extra_dense
            self.margin, self.negatives = margin, negatives
            self.active = keras.metrics.Mean("active")
            asked, told = (keras.Input((None,), dtype="int32") for _ in range(2))
            question = encoder(asked)
            if extra_dense:
                question = layers.Dense(extra_dense, name="extra_dense")(question)
            self.question_encoder = keras.Model(asked, unit_vectors(question))
            self.answer_encoder = keras.Model(told, unit_vectors(encoder(told)))

        def call(self, inputs):
            """Cosines of every question with every answer: (batch, batch)."""
            questions, answers = inputs
            answers = self.answer_encoder(answers)
            return ops.matmul(self.question_encoder(questions), ops.transpose(answers))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            right = ops.diagonal(y_pred)
            if self.negatives == "hard":  # 2 takes the right answer below all others.
                wrong = ops.max(y_pred - 2 * ops.eye(ops.shape(y_pred)[0]), -1)
            else:
                wrong = ops.diagonal(ops.roll(y_pred, -1, 1))
            losses = ops.relu(self.margin + wrong - right)
            self.active.update_state(ops.cast(losses > 0, "float32"))
            return ops.mean(losses)

        def get_config(self):
            config = {"encoder": keras.saving.serialize_keras_object(self.encoder)}
            config |= {"extra_dense": self.extra_dense, "margin": self.margin}
            return super().get_config() | config | {"negatives": self.negatives}

        @classmethod
        def from_config(cls, config):
            encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
            return cls(encoder, **config)

    return TripletModel


# --- Center loss (needs only keras; copy it) ---
def build_model(input_shape=(224, 224, 3), num_classes=100, feature_dim=32, activation="relu"):
    """The post's classifier: pictures of 0 to 255 to probabilities, by way of "features"."""
    inputs = keras.Input(input_shape, name="picture")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(10, 2)(x)
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    x = layers.Dense(feature_dim, activation, name="features")(x)
    # Probabilities in float32, whatever the policy.
    head = layers.Dense(num_classes, "softmax", name="probabilities", dtype="float32")
    return keras.Model(inputs, head(x))


def build_center_model(classifier):
    """The post's form: the class is an input, too, and the distance to its centre an output.

    Two outputs keep the accuracy visible. Compile with loss={"probabilities":
    "sparse_categorical_crossentropy", "distance": output_is_loss}, loss_weights={"probabilities":
    1, "distance": 0.2} and metrics={"probabilities": "accuracy"}; "distance" has dummy targets.
    The classifier shares its layers and predicts without the class.
    """
    target = keras.Input((), dtype="int32", name="target")
    features = classifier.get_layer("features").output
    sizes = classifier.output.shape[-1], features.shape[-1]
    centres = layers.Embedding(*sizes, name="centres", dtype="float32")(target)
    distance = ops.sum(ops.square(ops.cast(features, "float32") - centres), -1, keepdims=True)
    outputs = {"probabilities": classifier.output, "distance": distance}
    return keras.Model([classifier.input, target], outputs)


def center_loss_class():
    """Today's form: a registered Layer that passes the features on and adds the loss.

    Call this function, too, before you load a model with it.
    """

    @keras.saving.register_keras_serializable("kexue")
    class CenterLoss(layers.Layer):
        def __init__(self, num_classes, weight=0.2, **keywords):
            super().__init__(**keywords)
            self.num_classes, self.weight = num_classes, weight

        def build(self, features_shape, target_shape=None):
            shape = (self.num_classes, features_shape[-1])
            # Not cast to half precision, in which a small step of a centre would be lost.
            self.centres = self.add_weight(
                shape=shape, initializer="uniform", name="centres", dtype="float32", autocast=False
            )

        def call(self, features, target):
            centres = ops.take(self.centres, ops.reshape(target, (-1,)), axis=0)
            squares = ops.square(ops.cast(features, "float32") - centres)
            self.add_loss(self.weight * ops.mean(ops.sum(squares, -1)))
            return features

        def get_config(self):
            settings = {"num_classes": self.num_classes, "weight": self.weight}
            return super().get_config() | settings

    return CenterLoss


def build_center_layer_model(classifier, weight=0.2):
    """The classifier with a CenterLoss between features and probabilities, for training.

    fit([pictures, classes], classes); compile with cross-entropy and accuracy as ever.
    """
    center_loss = center_loss_class()(classifier.output.shape[-1], weight, name="center_loss")
    target = keras.Input((), dtype="int32", name="target")
    features = center_loss(classifier.get_layer("features").output, target)
    outputs = classifier.get_layer("probabilities")(features)
    return keras.Model([classifier.input, target], outputs)


# --- Data ---
def load_data(args):
    """The splits of the digits and of the texts, as far as args.loss needs them, and notes."""
    digits, texts, names, notes, digest = None, None, [], {}, hashlib.sha256()
    if set(args.loss) - {"triplet"}:
        sizes = args.num_train, args.num_valid, args.num_test
        digits, name = load_digits(args.data, *sizes, args.batch_size)
        names.append(name)
        for split, (pictures, labels) in digits.items():
            notes[f"num_{split}"] = len(labels)
            digest.update(pictures.tobytes() + labels.tobytes())
    if "triplet" in args.loss:
        texts, name = load_texts(args.faq, args.num_pairs, args.num_asked, args.batch_size)
        names.append(name)
        notes["num_answers"] = len(texts["test"][2])
        for split, (questions, numbers, answers) in texts.items():
            notes[f"num_{split}_questions"] = len(questions)
            digest.update("\n".join([*questions, *answers]).encode() + numbers.tobytes())
    return digits, texts, {"name": " + ".join(names)} | notes | {"sha256": digest.hexdigest()}


# --- Training ---
def compiled_classifier(args, kind, feature_dim):
    """A network of the digits 0 to 6: "plain", "smoothing" or "center"."""
    activation = None if feature_dim == 2 else "relu"  # Of 2-D, to see the whole plane.
    model = build_model((28, 28, 1), SEEN, feature_dim, activation)
    if kind == "center":
        model = build_center_layer_model(model, args.center_weight)
    smoothed = smoothed_crossentropy_class()(args.epsilon)
    loss = smoothed if kind == "smoothing" else "sparse_categorical_crossentropy"
    optimizer = keras.optimizers.Adam(args.learning_rate)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=on_jax())
    return model


def compiled_triplets(args, vocabulary_size, extra_dense, negatives):
    """The network of the questions; negatives: "random" or "hard"."""
    encoder = build_encoder(vocabulary_size)
    model = triplet_model_class()(encoder, extra_dense, args.margin, negatives)
    model.compile(keras.optimizers.Adam(args.learning_rate), jit_compile=on_jax())
    return model


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    losses = ["smoothing", "triplet", "center"]
    add("--loss", nargs="+", choices=losses, default=losses, help="default: all three")
    add("--faq", metavar="FILE", help="your questions and answers; default: written by code")
    add("--epsilon", type=float, default=0.1, help="share of the target that is spread; post: 0.1")
    add("--margin", type=float, default=0.1, help="of the triplet loss; post: 0.1")
    add("--center-weight", type=float, default=0.2, help="of the center loss; post: 0.2")
    add("--num-train", type=int, help="digits to train on")
    add("--num-valid", type=int, default=1000, help="digits to choose the epoch by")
    add("--num-test", type=int, default=5000, help="test digits, read once")
    add("--num-pairs", type=int, help="questions with answers to train on")
    add("--num-asked", type=int, default=640, help="questions to validate, as many to test")
    add("--epochs", type=int, help="over the digits; post: 10")
    add("--text-epochs", type=int, help="over the questions; post: 10")
    add("--batch-size", type=int, default=64, help="post: not given")
    add("--learning-rate", type=float, default=1e-3, help="of Adam, constant as in the post")
    quick = {"num_train": 5000, "epochs": 16, "num_pairs": 3840, "text_epochs": 7}
    presets = {
        "smoke": {"num_train": 400, "num_valid": 100, "num_test": 200, "epochs": 2}
        | {"num_pairs": 640, "num_asked": 320, "text_epochs": 2},
        "quick": quick,
        "full": {"num_train": 20_000, "epochs": 40, "num_pairs": 15_360, "text_epochs": 30},
        "post": quick | {"epochs": 10, "text_epochs": 10},
    }
    return parse_run_args(parser, presets, argv)


def main(argv=None):
    args = parse_args(argv)
    numbers = (args.num_train, args.num_valid, args.num_test, args.num_pairs, args.num_asked)
    numbers += (args.epochs, args.text_epochs, args.learning_rate, args.margin, args.center_weight)
    finite = all(0 < number < float("inf") for number in numbers)
    if not finite or args.batch_size < 2 or not 0 < args.epsilon < 1:
        fail("expected --batch-size of 2 or more, --epsilon in (0, 1), other settings above 0")
    if (args.faq and "triplet" not in args.loss) or (args.data and args.loss == ["triplet"]):
        fail("--faq is for --loss triplet, --data for the two others")
    digits, texts, notes = load_data(args)
    run = Run(args, "custom_loss", notes["sha256"])
    print(f"{notes['name']}: {', '.join(f'{k} {v}' for k, v in notes.items() if k[:3] == 'num')}")
    results = []
    if digits:
        compiled = functools.partial(compiled_classifier, args)
        results.append(run_digits(args, run, digits, compiled))
    if texts:
        results.append(run_texts(args, run, texts, functools.partial(compiled_triplets, args)))
    metrics, details, pictures, histories = (
        {name: value for part in parts for name, value in part.items()}
        for parts in zip(*results, strict=True)
    )
    run.history = [{"model": name} | entry for name, h in histories.items() for entry in h]
    return run.finish(
        row=f"{'smoke' if args.smoke else args.preset}, {notes['name']}",
        data=notes,
        metrics=metrics,
        selection="each network at its best validation epoch",
        details=details,
        pictures=pictures,
    )


if __name__ == "__main__":
    run_script(main)
