"""Three custom losses, each in the form of 2017 and in today's: smoothing, triplet, center.

The file needs keras and numpy alone: copy it whole, or take one function or class out of it.

| loss            | the form of the post                 | today's form                          |
|-----------------|--------------------------------------|---------------------------------------|
| label smoothing | a function of (y_true, y_pred)       | a registered Loss for class numbers   |
| triplet         | the output of the model is the loss  | a Model with compute_loss             |
| center          | the class is an input, too           | a registered Layer with add_loss      |

Post: https://kexue.fm/archives/4493
"""

import keras
from keras import layers, ops


# --- Label smoothing ---
def smoothed_crossentropy(y_true, y_pred, epsilon=0.1):
    """The post's form, a function for compile(loss=...): one number per sample.

    Cross-entropy against a target of which a fraction `epsilon` is spread over all classes, so
    that a network gains nothing by making its logits ever larger.

    Args:
        y_true: one-hot rows (batch, classes).
        y_pred: probabilities (batch, classes).
    """
    logarithms = ops.log(ops.maximum(y_pred, 1e-7))
    right = ops.sum(ops.multiply(y_true, logarithms), -1)
    uniform = ops.mean(logarithms, -1)
    return -(1 - epsilon) * right - epsilon * uniform


@keras.saving.register_keras_serializable("kexue")
class SmoothedCrossentropy(keras.losses.Loss):
    """Today's form: for class numbers (batch,) or (batch, 1) and probabilities (batch, classes).

    Args:
        epsilon: the fraction of the target that is spread over all classes.
    """

    def __init__(self, epsilon=0.1, name="smoothed_crossentropy", **keywords):
        super().__init__(name=name, **keywords)
        self.epsilon = epsilon

    def call(self, y_true, y_pred):
        num_classes = y_pred.shape[-1]
        y_true = ops.reshape(y_true, ops.shape(y_pred)[:-1])
        one_hot = ops.one_hot(ops.cast(y_true, "int32"), num_classes)
        target = (1 - self.epsilon) * one_hot + self.epsilon / num_classes
        return -ops.sum(target * ops.log(ops.maximum(y_pred, 1e-7)), -1)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


# --- Triplet loss ---
def output_is_loss(y_true, y_pred):
    """For a model whose output is the loss already; the targets are dummies of its shape."""
    return y_pred


def unit_vectors(x):
    """The rows of x at length 1, in float32 whatever the policy; a zero row stays zero."""
    x = ops.cast(x, "float32")
    squares = ops.sum(ops.square(x), -1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, 1e-12))


def build_encoder(vocabulary_size=10_000, embedding_dim=128, units=64):
    """From ids (batch, length), 0 for padding, to vectors (batch, units)."""
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(vocabulary_size, embedding_dim, mask_zero=True)(ids)
    return keras.Model(ids, layers.LSTM(units)(x), name="encoder")


def build_triplet_model(encoder, extra_dense=64, margin=0.1):
    """The post's form: question, right and wrong answer in, the loss of each (batch, 1) out.

    The loss is max(0, margin + cosine with the wrong answer - cosine with the right one).
    Question and answers share `encoder`. The question alone goes through one more linear layer,
    because it is not to be encoded as its answer is. Compile with output_is_loss, and give `fit`
    dummy targets.

    Args:
        extra_dense: the units of that layer, as many as the encoder has; None: no such layer.

    Returns:
        The model, and the question and the answer encoder: from ids to vectors of length 1.
    """
    inputs = [
        keras.Input((None,), dtype="int32", name="question"),
        keras.Input((None,), dtype="int32", name="right"),
        keras.Input((None,), dtype="int32", name="wrong"),
    ]
    question, right, wrong = (encoder(ids) for ids in inputs)
    if extra_dense:
        question = layers.Dense(extra_dense, name="extra_dense")(question)
    question = unit_vectors(question)
    right = unit_vectors(right)
    wrong = unit_vectors(wrong)
    difference = ops.sum(question * (wrong - right), -1, keepdims=True)
    model = keras.Model(inputs, ops.relu(margin + difference))
    return model, keras.Model(inputs[0], question), keras.Model(inputs[1], right)


@keras.saving.register_keras_serializable("kexue")
class TripletModel(keras.Model):
    """Today's form: takes the wrong answers out of the batch.

    Call fit((questions, answers)), without targets; no answer may be in a batch twice.

    Args:
        encoder: from ids to vectors, shared by questions and answers.
        extra_dense: as in build_triplet_model.
        negatives: "random" compares with the answer of the next row, "hard" with the answer in
            the batch that is nearest to the question but wrong.

    The metric "active" is the fraction of triplets whose loss is not yet 0.
    """

    def __init__(self, encoder, extra_dense=64, margin=0.1, negatives="random", **keywords):
        super().__init__(**keywords)
        self.encoder = encoder
        self.extra_dense = extra_dense
        self.margin = margin
        self.negatives = negatives
        self.active = keras.metrics.Mean("active")
        question_ids = keras.Input((None,), dtype="int32")
        answer_ids = keras.Input((None,), dtype="int32")
        question = encoder(question_ids)
        if extra_dense:
            question = layers.Dense(extra_dense, name="extra_dense")(question)
        self.question_encoder = keras.Model(question_ids, unit_vectors(question))
        self.answer_encoder = keras.Model(answer_ids, unit_vectors(encoder(answer_ids)))

    def call(self, inputs):
        """Cosines of every question with every answer: (batch, batch)."""
        questions, answers = inputs
        answers = self.answer_encoder(answers)
        return ops.matmul(self.question_encoder(questions), ops.transpose(answers))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        right = ops.diagonal(y_pred)
        if self.negatives == "hard":
            # A cosine lies between -1 and 1: minus 2, the right answer is never the nearest.
            wrong = ops.max(y_pred - 2 * ops.eye(ops.shape(y_pred)[0]), -1)
        else:
            wrong = ops.diagonal(ops.roll(y_pred, -1, 1))
        losses = ops.relu(self.margin + wrong - right)
        self.active.update_state(ops.cast(losses > 0, "float32"))
        return ops.mean(losses)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "extra_dense": self.extra_dense,
            "margin": self.margin,
            "negatives": self.negatives,
        }

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)


# --- Center loss ---
def build_model(input_shape=(224, 224, 3), num_classes=100, feature_dim=32, activation="relu"):
    """The post's classifier: images of 0 to 255 to probabilities, by way of "features"."""
    # The name of the input stands in saved models.
    inputs = keras.Input(input_shape, name="picture")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(10, 2)(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
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
    num_classes = classifier.output.shape[-1]
    embedding = layers.Embedding(num_classes, features.shape[-1], name="centres", dtype="float32")
    centres = embedding(target)
    distance = ops.sum(ops.square(ops.cast(features, "float32") - centres), -1, keepdims=True)
    outputs = {"probabilities": classifier.output, "distance": distance}
    return keras.Model([classifier.input, target], outputs)


@keras.saving.register_keras_serializable("kexue")
class CenterLoss(layers.Layer):
    """Today's form: passes the features on and adds the loss.

    Called with features (batch, feature_dim) and class numbers (batch,) or (batch, 1).

    Args:
        weight: of the mean squared distance of the features to the centres of their classes.
    """

    def __init__(self, num_classes, weight=0.2, **keywords):
        super().__init__(**keywords)
        self.num_classes = num_classes
        self.weight = weight

    def build(self, features_shape, target_shape=None):
        # Not cast to half precision, in which a small step of a centre would be lost.
        self.centres = self.add_weight(
            shape=(self.num_classes, features_shape[-1]),
            initializer="uniform",
            name="centres",
            dtype="float32",
            autocast=False,
        )

    def call(self, features, target):
        centres = ops.take(self.centres, ops.reshape(target, (-1,)), axis=0)
        squares = ops.square(ops.cast(features, "float32") - centres)
        self.add_loss(self.weight * ops.mean(ops.sum(squares, -1)))
        return features

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "weight": self.weight,
        }


def build_center_layer_model(classifier, weight=0.2):
    """The classifier with a CenterLoss between features and probabilities, for training.

    Call fit([images, classes], classes); compile with cross-entropy and accuracy as usual. The
    classifier shares its layers and predicts without the class.
    """
    num_classes = classifier.output.shape[-1]
    target = keras.Input((), dtype="int32", name="target")
    center_loss = CenterLoss(num_classes, weight, name="center_loss")
    features = center_loss(classifier.get_layer("features").output, target)
    outputs = classifier.get_layer("probabilities")(features)
    return keras.Model([classifier.input, target], outputs)
