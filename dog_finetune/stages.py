"""The stages of a training, one after the other. Read it from top to bottom.

The post trains in three stages: the heads on a frozen network; the last blocks, too; and at last
with light augmentation. Ours fits a logistic regression and then trains the last blocks once.
"""

import functools
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from keras import layers
from scipy.optimize import minimize
from scipy.special import log_softmax

from common.cli import fail, first_line
from common.parallel import DataParallel
from common.run import Run
from data import dogs
from dog_finetune import evaluate, features, model
from dog_finetune.dataset import AugmentedImages, DogData

# The seed of the batches of a stage is (--seed, its number).
STAGE_NUMBERS = {"stage0": 0, "stage1": 1, "stage2": 2, "stage3": 3, "pseudo2": 4, "pseudo3": 5}
LOSS_WEIGHTS = {"main": 1.0, "auxiliary": 0.25, "distance": 0.25}
# What --weights drawn learns.
NUM_OTHER_BREEDS = 40
IMAGES_PER_OTHER_BREED = 80
PRETRAINING_EPOCHS = 4
# Of the logistic regression, tried from the strongest on.
PENALTIES = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
DEFAULT_PENALTY = 1e-3  # Where there are no validation images to choose by.


@dataclass
class Network:
    """The parts that all stages share.

    Attributes:
        stem: uint8 images to feature maps, frozen.
        tail: feature maps to one vector per image: the last blocks.
        heads: a vector to {"main", "auxiliary": probabilities, "features"}.
        centres: an Embedding of the classes for center loss, or None.
    """

    stem: keras.Model
    tail: keras.Model
    heads: keras.Model
    centres: layers.Embedding | None

    @functools.cached_property
    def classifier(self):
        """Feature maps to the outputs of the heads."""
        return keras.Model(self.tail.input, self.heads(self.tail.output))


@dataclass
class Inputs:
    """The images of one training, and where the features of them are kept.

    Attributes:
        data: the DogData.
        images: those to train on, and with pseudo-labels the unlabelled ones. Their labels are -1
            until they are guessed.
        feature_maps: {split: feature maps (n, views, rows, columns, channels)} of the splits that
            are not trained on.
        folder: where features are kept.
    """

    data: DogData
    images: AugmentedImages
    folder: features.FeatureFolder
    feature_maps: dict = field(default_factory=dict)


# --- One training ---
def train(args, run, parallel, network, data, draw):
    """All stages on one split of the images.

    Args:
        run, parallel: the Run and the DataParallel of the script.
        draw: the number of the split.

    Returns:
        An `evaluate.Result`. The network is trained in place.
    """
    prefix = ""
    if args.draws > 1:
        prefix = f"draw{draw}-"
    fitter = Fitter(run, parallel, prefix)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if args.weights == "drawn":
            pretrain(args, network, fitter, pool)
        inputs = prepare_inputs(args, run, network, data, pool, prefix)
        if args.recipe == "post":
            predictions, details = train_post(args, network, inputs, fitter)
        elif args.recipe == "ours":
            predictions, details = train_ours(args, network, inputs, fitter)
        else:
            predictions, details = train_probe(args, network, inputs)
    if fitter.images_per_second:
        details["pictures per second"] = fitter.images_per_second
    return evaluate.Result(data, predictions, details, fitter.history)


def train_post(args, network, inputs, fitter):
    """The post's recipe: three stages; with pseudo-labels the last two of them once more."""
    last_augmentation = "light"
    if "light" in args.without:
        last_augmentation = "full"
    first_epochs, second_epochs, third_epochs = args.epochs
    predictions = {}
    details = {}

    train_heads(args, network, inputs, fitter, first_epochs)
    predictions["stage1"] = predict_splits(network, inputs)
    train_last_blocks(args, network, inputs, fitter, "stage2", "full", second_epochs)
    predictions["stage2"] = predict_splits(network, inputs)
    train_last_blocks(args, network, inputs, fitter, "stage3", last_augmentation, third_epochs)
    predictions["stage3"] = predict_splits(network, inputs)

    if "pseudo" not in args.without:
        details = guess_labels(inputs, predictions["stage3"])
        train_last_blocks(args, network, inputs, fitter, "pseudo2", "full", second_epochs)
        predictions["pseudo2"] = predict_splits(network, inputs)
        train_last_blocks(args, network, inputs, fitter, "pseudo3", last_augmentation, third_epochs)
        predictions["pseudo3"] = predict_splits(network, inputs)
    return predictions, details


def train_ours(args, network, inputs, fitter):
    """Our recipe: logistic regression, then the last blocks with our augmentation and Adam."""
    [epochs] = args.epochs
    predictions, details = train_probe(args, network, inputs)
    train_last_blocks(args, network, inputs, fitter, "stage2", "ours", epochs)
    predictions["stage2"] = predict_splits(network, inputs)
    return predictions, details


def train_probe(args, network, inputs):
    """Logistic regression on the vectors of the frozen network, nothing else."""
    details = fit_probe(args, network, inputs)
    return {"stage1": predict_splits(network, inputs)}, details


# --- The network ---
def build_network(args, num_classes):
    """The Network that the flags ask for."""
    stem, tail = load_backbone(args)
    heads = model.build_heads(
        tail.output.shape[-1],
        num_classes,
        gated="glu" not in args.without,
        auxiliary="auxiliary" not in args.without,
    )
    # Made even where it is not used, so that the other weights start from the same numbers.
    centres = layers.Embedding(num_classes, heads.output["features"].shape[-1])
    if "center" in args.without:
        centres = None
    return Network(stem, tail, heads, centres)


def load_backbone(args):
    """The stem and the tail; a network that cannot be built or loaded ends in one line."""
    weights = args.weights
    if weights in ("none", "drawn"):
        weights = None
    elif weights != "imagenet" and not Path(weights).exists():
        fail(f"--weights {weights}: there is no such file")
    try:
        with warnings.catch_warnings():
            # Weights that fit only in part are an error, too.
            warnings.filterwarnings("error", message="Skipping")
            return model.build_backbone(args.backbone, args.image_size, weights, args.blocks)
    except Exception as error:  # Of many kinds: an unknown name, no network, another's weights.
        fail(
            f"no --backbone {args.backbone} with --weights {args.weights} "
            f"({first_line(error)}); --weights PATH takes a file made without the top, "
            "--weights none starts from scratch"
        )


# --- The inputs of the stages ---
def prepare_inputs(args, run, network, data, pool, prefix):
    """The images to train on, and the feature maps of all others."""
    sources, labels = data.splits["train"]
    sources = list(sources)
    splits = [split for split in data.splits if split != "train" and data.count(split) > 0]
    if "pseudo" in args.without:
        splits = [split for split in splits if split != "unlabelled"]
    else:
        others, _ = data.splits["unlabelled"]
        sources.extend(others)
        labels = np.append(labels, np.full(len(others), -1))
    images = make_images(args, sources, pool, labels)
    pieces = {"splices", "masks"} & set(args.without)
    folder = features.FeatureFolder(
        run.dir,
        prefix,
        shared=args.maps,
        data_sha256=data.notes["sha256"],
        settings=(
            features.VERSION,
            keras.backend.backend(),
            args.seed,
            args.image_size,
            args.unlabelled,
            sorted(pieces),
        ),
    )
    inputs = Inputs(data, images, folder)
    for split in splits:
        sources, _ = data.splits[split]
        images = make_images(args, list(sources), pool)
        inputs.feature_maps[split] = folder.features_of_images(
            f"{split}-maps", network.stem, images, "test", args.tta
        )
    return inputs


def make_images(args, sources, pool, labels=None):
    """The AugmentedImages of a list of sources, as the flags want them."""
    return AugmentedImages(
        sources,
        args.image_size,
        args.seed,
        pool,
        labels,
        splices="splices" not in args.without,
        masks="masks" not in args.without,
    )


def valid_labels(inputs):
    _, labels = inputs.data.splits["valid"]
    return labels


def valid_vectors(network, inputs):
    """The vectors (n, channels) of the validation images; None if there are none."""
    if "valid" not in inputs.feature_maps:
        return None
    return features.predict(network.tail, inputs.feature_maps["valid"][:, 0])


# --- Stage 0 ---
def pretrain(args, network, fitter, pool):
    """For --weights drawn: the whole network learns breeds that are not asked for later.

    A network of random weights has no features to train heads on, and drawn dogs need no
    download. Only here does batch normalization learn its statistics.
    """
    breeds = range(args.breeds, min(args.breeds + NUM_OTHER_BREEDS, dogs.NUM_BREEDS))
    num_images = IMAGES_PER_OTHER_BREED
    epochs = PRETRAINING_EPOCHS
    if args.smoke:
        num_images = 4
        epochs = 2
    sources, labels = dogs.load("train", breeds, num_images)
    valid_sources, labels_of_valid = dogs.load("valid", breeds, 4)
    images = make_images(args, list(sources), pool)
    valid_images = make_images(args, list(valid_sources), pool)

    x = keras.Input(network.stem.input.shape[1:], dtype=network.stem.input.dtype, name="x")
    head = layers.Dense(len(breeds), "softmax")
    whole = keras.Model({"x": x}, {"main": head(network.tail(network.stem(x)))})
    frozen = [layer for layer in network.tail.layers if not layer.trainable]
    network.stem.trainable = True
    network.tail.trainable = True
    for layer in (*network.stem.layers, *network.tail.layers):
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # In so short a training the statistics must keep up.

    steps = max(1, len(labels) // 32)
    whole.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps * epochs)),
        {"main": "categorical_crossentropy"},
        metrics={"main": "accuracy"},
        **compile_options(args),
    )
    targets = features.Targets(labels, len(breeds), ["main"])
    valid_targets = features.Targets(labels_of_valid, len(breeds), ["main"])
    seed = (args.seed, STAGE_NUMBERS["stage0"])
    batches = features.ImageBatches(images, "plain", targets, seed, steps, pairs=False)
    valid = valid_targets.join_all(valid_images.plain())
    fitter.fit("stage0", whole, batches, epochs, valid)
    network.stem.trainable = False
    for layer in frozen:
        layer.trainable = False


# --- Stage 1 ---
def train_heads(args, network, inputs, fitter, epochs):
    """Stage 1: the heads alone, on vectors of the frozen network."""
    vectors = vectors_to_train_on(args, network, inputs, "full", args.views)
    steps = count_steps(args, inputs)
    training_model, outputs = compile_heads(args, network)
    targets = features.Targets(inputs.images.labels, inputs.data.num_classes, outputs)
    seed = (args.seed, STAGE_NUMBERS["stage1"])
    batches = features.FeatureBatches(vectors, targets, seed, steps)
    valid = valid_data(inputs, outputs, valid_vectors(network, inputs))
    fitter.fit("stage1", training_model, batches, epochs, valid)
    fitter.note_speed("stage1", steps * epochs * images_per_batch(inputs))


def vectors_to_train_on(args, network, inputs, augmentation, count):
    """The vectors (n, count, channels) of `count` augmentations of each training image."""
    folder = inputs.folder
    name = f"{augmentation}-vectors"
    if args.fresh:  # No later stage needs the feature maps of these augmentations.
        whole = keras.Model(network.stem.input, network.tail(network.stem.output))
        return folder.features_of_images(name, whole, inputs.images, augmentation, count)
    feature_maps = folder.features_of_images(
        f"{augmentation}-maps", network.stem, inputs.images, augmentation, count
    )
    return folder.features_of_features(name, network.tail, feature_maps)


def compile_heads(args, network):
    """The training model of stage 1, and the names of its outputs."""
    training_model = model.build_training_model([network.heads], network.centres)
    return compile_model(args, training_model, keras.optimizers.Adam(1e-3))


# --- Stages 2 and 3 ---
def train_last_blocks(args, network, inputs, fitter, stage, augmentation, epochs):
    """The last blocks and the heads: on kept feature maps, or with --fresh on new augmentations."""
    steps = count_steps(args, inputs)
    training_model, outputs = compile_last_blocks(args, network, steps * epochs)
    targets = features.Targets(inputs.images.labels, inputs.data.num_classes, outputs)
    seed = (args.seed, STAGE_NUMBERS[stage])
    mixup = 0.0
    if args.recipe == "ours":
        mixup = args.mixup
    valid_x = None
    if args.fresh:
        batches = features.ImageBatches(
            inputs.images, augmentation, targets, seed, steps, mixup=mixup
        )
        if "valid" in inputs.feature_maps:
            sources, _ = inputs.data.splits["valid"]
            valid_x = make_images(args, list(sources), inputs.images.pool).plain()
    else:
        feature_maps = inputs.folder.features_of_images(
            f"{augmentation}-maps", network.stem, inputs.images, augmentation, args.views
        )
        batches = features.FeatureBatches(feature_maps, targets, seed, steps, mixup=mixup)
        if "valid" in inputs.feature_maps:
            valid_x = inputs.feature_maps["valid"][:, 0].astype("float32")
    fitter.fit(stage, training_model, batches, epochs, valid_data(inputs, outputs, valid_x))
    fitter.note_speed(stage, steps * epochs * images_per_batch(inputs))


def compile_last_blocks(args, network, num_steps):
    """The training model of a later stage, and the names of its outputs."""
    parts = [network.tail, network.heads]
    if args.fresh:
        parts = [network.stem, *parts]
    training_model = model.build_training_model(parts, network.centres)
    if args.recipe == "ours":
        optimizer = model.decaying_adam(
            training_model, args.learning_rate, args.decay, args.blocks, num_steps
        )
    else:
        optimizer = keras.optimizers.SGD(args.learning_rate, momentum=0.9)
    return compile_model(args, training_model, optimizer)


# --- What all stages share ---
def compile_model(args, training_model, optimizer):
    """Compiles a training model; returns it and the names of its outputs."""
    label_smoothing = 0.0
    if args.recipe == "ours":
        label_smoothing = 0.1
    crossentropy = keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
    losses = {"main": crossentropy}
    if "auxiliary" in training_model.output:
        losses["auxiliary"] = crossentropy
    if "distance" in training_model.output:
        losses["distance"] = model.output_is_loss
    training_model.compile(
        optimizer,
        losses,
        loss_weights={name: LOSS_WEIGHTS[name] for name in losses},
        metrics={"main": "accuracy"},
        **compile_options(args),
    )
    return training_model, list(losses)


def compile_options(args):
    """On a CPU, XLA compiles a deep network for minutes and does not run it faster."""
    # The few steps of --smoke take less time than to compile them. Devices that run eagerly side
    # by side may wait for each other for ever, though.
    if args.smoke and not hasattr(args, "data_parallel"):
        return {"run_eagerly": True}
    if keras.backend.backend() == "tensorflow":
        return {"jit_compile": False}
    return {"jit_compile": "auto"}


def images_per_batch(inputs):
    """Two images of each of at most 16 classes."""
    return 2 * min(16, inputs.data.num_classes)


def count_steps(args, inputs):
    """The batches of an epoch: those that --steps gives, or as many as show each image once."""
    if args.steps is not None:
        return args.steps
    num_labelled = int((inputs.images.labels >= 0).sum())
    return -(-num_labelled // images_per_batch(inputs))


def valid_data(inputs, outputs, x):
    """Validation data for `fit`, or None."""
    if x is None:
        return None
    targets = features.Targets(valid_labels(inputs), inputs.data.num_classes, outputs)
    return targets.join_all(x)


def predict_splits(network, inputs):
    """{split: {head: probabilities (n, views, classes)}} of the splits that are not trained on."""
    predictions = {}
    for split, maps in inputs.feature_maps.items():
        n, num_views = maps.shape[:2]
        heads = features.predict(network.classifier, maps.reshape(-1, *maps.shape[2:]))
        del heads["features"]
        predictions[split] = {head: p.reshape(n, num_views, -1) for head, p in heads.items()}
    return predictions


def guess_labels(inputs, predictions):
    """Gives the unlabelled images the classes that a stage predicts, in place.

    Returns:
        Details for the record.
    """
    fraction = evaluate.best_fraction(predictions, inputs.data)
    probabilities = evaluate.mean_over_views(predictions["unlabelled"], fraction)
    guesses = probabilities.argmax(axis=-1)
    inputs.images.labels[-len(guesses) :] = guesses
    details = {"pseudo-labels": len(guesses)}
    _, labels = inputs.data.splits["unlabelled"]
    known = labels >= 0  # Where labels were only hidden.
    if known.any():
        correct = (guesses == labels)[known].mean()
        details["pseudo-labels that are right"] = round(float(correct), 4)
    return details


@dataclass
class Fitter:
    """Fits the models of one stage after the other.

    Attributes:
        prefix: of the files of all stages.
        history: one dict per epoch of every stage.
        seconds: of the last stage; None where it was stopped and resumed.
        images_per_second: {stage: speed of its training}.
    """

    run: Run
    parallel: DataParallel
    prefix: str
    history: list = field(default_factory=list)
    seconds: float | None = None
    images_per_second: dict = field(default_factory=dict)

    def fit(self, stage, training_model, batches, epochs, valid):
        """Trains or resumes a stage, and leaves the model at its best validation epoch.

        Without validation images (valid is None) the last epoch is taken.
        """
        name = self.prefix + stage
        print(name, flush=True)
        accuracy = "main_accuracy"
        if len(training_model.outputs) == 1:
            accuracy = "accuracy"
        monitor = None
        if valid is not None:
            monitor = f"val_{accuracy}"
            valid = self.parallel.even(valid)
        checkpoint = self.run.checkpoint(training_model, monitor, prefix=f"{name}-")
        batches.first_epoch = self.run.epoch
        start = time.time()
        if self.run.epoch < epochs:
            with self.parallel.spread(training_model):
                training_model.fit(
                    self.parallel.own_rows(batches),
                    steps_per_epoch=batches.steps_per_epoch,
                    initial_epoch=self.run.epoch,
                    epochs=epochs,
                    validation_data=valid,
                    validation_batch_size=64,
                    callbacks=[checkpoint],
                    shuffle=False,
                    verbose=self.run.verbose,
                )
        self.seconds = None
        if not self.run.args.resume:
            self.seconds = time.time() - start
        if valid is not None:
            load_weights(training_model, self.run.dir / f"{name}-model.keras")
        if training_model.optimizer.use_ema:
            self.take_better_weights(training_model, valid, accuracy)
        self.history += [{"stage": name, **entry} for entry in self.run.history]

    def take_better_weights(self, training_model, valid, accuracy):
        """Takes the running mean of the weights, unless it is worse on validation images."""
        with self.parallel.spread(training_model):
            best = training_model.get_weights()
            score = validate(training_model, valid, accuracy)
            training_model.optimizer.finalize_variable_values(training_model.trainable_variables)
            score_of_mean = validate(training_model, valid, accuracy)
        if score_of_mean < score:
            training_model.set_weights(best)

    def note_speed(self, stage, num_images):
        if self.seconds:
            self.images_per_second[stage] = round(num_images / self.seconds, 1)


def load_weights(training_model, path):
    try:
        training_model.load_weights(path)
    except Exception as error:  # A damaged file raises errors of many classes.
        fail(f"{path} is missing or damaged: {first_line(error)}")


def validate(training_model, valid, accuracy):
    """The accuracy on validation data; 0 if there are none."""
    if valid is None:
        return 0.0
    x, y = valid
    return training_model.evaluate(x, y, batch_size=64, verbose=0, return_dict=True)[accuracy]


# --- Logistic regression ---
def fit_probe(args, network, inputs):
    """In the place of a stage: the softmax of a logistic regression; its penalty by validation.

    Returns:
        Details for the record.
    """
    x = np.array(vectors_to_train_on(args, network, inputs, "plain", 1)[:, 0])
    labels = inputs.images.labels
    valid = valid_vectors(network, inputs)
    if valid is None:
        weights = fit_linear_probe(x, labels, inputs.data.num_classes, DEFAULT_PENALTY)
        network.heads.get_layer("main").set_weights(weights)
        return {"penalty": DEFAULT_PENALTY}
    fits = {}
    accuracies = {}
    for penalty in PENALTIES:
        kernel, bias = fit_linear_probe(x, labels, inputs.data.num_classes, penalty)
        correct = (valid @ kernel + bias).argmax(axis=-1) == valid_labels(inputs)
        fits[penalty] = (kernel, bias)
        accuracies[penalty] = correct.mean().item()
    best = max(accuracies, key=accuracies.get)  # Of equally good ones the strongest.
    network.heads.get_layer("main").set_weights(fits[best])
    return {
        "validation accuracy": {str(key): value for key, value in accuracies.items()},
        "penalty": best,
    }


def fit_linear_probe(x, y, num_classes, penalty=1e-3):
    """Multinomial logistic regression by L-BFGS: the best that one softmax makes of features.

    Args:
        x: features (n, d).
        y: classes (n,).
        penalty: half of it times the sum of the squared weights is added to the mean loss, for
            features that are centred and divided by one common standard deviation.

    Returns:
        Kernel (d, num_classes) and bias (num_classes,) of a Dense layer on x as it is.
    """
    mean = x.mean(0)
    deviation = (x - mean).std()
    z = np.column_stack([(x - mean) / deviation, np.ones(len(x))]).astype("float32")
    targets = np.eye(num_classes)[y]

    def loss_and_gradient(flat):
        weights = flat.reshape(-1, num_classes)
        log_p = log_softmax(z @ weights, axis=1)
        # The last row is the bias, which is not penalized.
        shrunk = penalty * np.vstack([weights[:-1], np.zeros((1, num_classes))])
        gradient = z.T @ (np.exp(log_p) - targets) / len(x) + shrunk
        loss = -(targets * log_p).sum() / len(x) + (shrunk * weights).sum() / 2
        return loss, gradient.ravel()

    start = np.zeros(z.shape[1] * num_classes)
    best = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    *kernel, bias = best.x.reshape(-1, num_classes)
    kernel = np.array(kernel) / deviation
    return kernel, bias - mean @ kernel
