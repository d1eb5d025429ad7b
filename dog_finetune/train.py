"""Fine-grained pictures in three stages: heads, last blocks, last blocks with light augmentation.

Post:   https://kexue.fm/archives/4611 (2017, Baidu's contest of 100 dog breeds): Xception with a
        gated head, an auxiliary softmax and center loss; about 80% right.
Data:   cartoon dogs (data/dogs.py), for which the network is first trained on other drawn breeds;
        --data takes a folder per class, or the contest's train.txt with train/ID.jpg.

    python dog_finetune/train.py                       # the post's recipe on drawn dogs, 2 minutes
    python dog_finetune/train.py --preset full         # ours
    python dog_finetune/train.py --preset post --data DIR    # the post's sizes, for a GPU
    python dog_finetune/train.py --data DIR --weights PATH   # your pictures
    python dog_finetune/predict.py                     # look at hits and misses

Writes runs/dog_finetune/NAME/. Read it from top to bottom: pictures, model, data, main.
"""

import argparse
from pathlib import Path

import numpy as np

from common.parallel import DataParallel, add_data_parallel
from common.run import Run, fail, keras, layers, ops, parse_run_args, run_script
from dog_finetune import networks, pictures, report, stages


# --- Views of a picture: uint8 (size, size, 3) to the same (they need only NumPy; copy them) ---
def centre_crop(picture):
    """The largest square from the middle."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def rotate(picture, degrees):
    """Turned about its centre, by nearest pixels; beyond the edge, the edge is repeated."""
    size, angle = len(picture), np.deg2rad(degrees)
    y = np.arange(size)[:, None] - (size - 1) / 2
    x = y.T
    rows = np.cos(angle) * y - np.sin(angle) * x + (size - 1) / 2
    columns = np.sin(angle) * y + np.cos(angle) * x + (size - 1) / 2
    rows, columns = (np.rint(at).clip(0, size - 1).astype(int) for at in (rows, columns))
    # Unlike picture[rows, columns], take lets other threads go on meanwhile.
    return np.take(picture.reshape(-1, 3), rows * size + columns, axis=0)


def zoom_paste(picture, factor, other, rng):
    """Larger: a random part of it. Smaller: all of it, pasted somewhere on another picture."""
    size = len(picture)
    side = max(1, round(size * factor))
    nearest = np.arange(side) * size // side
    zoomed = np.take(np.take(picture, nearest, axis=0), nearest, axis=1)
    top, left = rng.integers(abs(side - size) + 1, size=2)
    if side >= size:
        return zoomed[top : top + size, left : left + size]
    pasted = other.copy()
    pasted[top : top + side, left : left + side] = zoomed
    return pasted


def mask_quadrant(picture, quadrant):
    """One quarter (0 to 3) black, so that no single part of an animal may decide."""
    masked, half = picture.copy(), len(picture) // 2
    rows = slice(half) if quadrant < 2 else slice(half, None)
    columns = slice(half) if quadrant % 2 == 0 else slice(half, None)
    masked[rows, columns] = 0
    return masked


def splice(one, two, kind, cut=0.5):
    """A picture of two of the same class: kind 0 above and below, 1 side by side, 2, 3 diagonal."""
    size = len(one)
    y, x = np.arange(size)[:, None], np.arange(size)
    first = (y < cut * size + 0 * x, x < cut * size + 0 * y, x > y, x + y < size)[kind]
    return np.where(first[..., None], one, two)


def augment(picture, read_other, rng, light=False, masks=True):
    """The post's views. read_other() gives a picture to paste on, where one is needed."""
    if not light:
        picture = rotate(picture, rng.uniform(-10, 10))
    factor = rng.uniform(0.8, 1.2)
    picture = zoom_paste(picture, factor, read_other() if factor < 1 else None, rng)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    if masks and not light and rng.random() < 0.5:
        picture = mask_quadrant(picture, rng.integers(4))
    return picture


# --- Batches and blend (they need only NumPy; copy them) ---
def sample_pairs(labels, rng, num_classes=16, per_class=2):
    """The rows of one batch: distinct classes in proportion to their size, two pictures each."""
    classes, sizes = np.unique(labels, return_counts=True)
    num_classes, rows = min(num_classes, len(classes)), []
    for label in rng.choice(classes, num_classes, replace=False, p=sizes / sizes.sum()):
        members = np.flatnonzero(labels == label)
        rows.extend(rng.choice(members, per_class, replace=len(members) < per_class))
    return np.array(rows)


def choose_blend(main, auxiliary, labels):
    """The share of the main prediction, 0 to 1 by 0.01, that is right most often; large if even.

    Choose it on validation pictures.
    """
    shares = np.arange(100, -1, -1) / 100
    right = [((s * main + (1 - s) * auxiliary).argmax(-1) == labels).mean() for s in shares]
    return float(shares[np.argmax(right)])


# --- Model (it needs only keras; copy it) ---
def freeze_batch_norm(model):
    """BatchNormalization keeps to its stored statistics, in training too.

    To call the layers with training=False does not do: inside a model, fit overrides it.
    """
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def build_backbone(name="xception", image_size=299, weights="imagenet", blocks=2):
    """A network of keras.applications in two parts, cut below its last `blocks` blocks.

    A block ends where everything that was computed so far goes through one sum, concatenation
    or pooling; blocks are counted by position, as their layers' names do not tell them apart.

    Args:
        name: lower case, as "efficientnetv2b0"; "mobilenetv2-0.35" is a width; or a function of
            your own with the arguments include_top, weights, input_tensor and scaling inside.
        weights: None, "imagenet" or the path of a file made without the top.

    Returns:
        The frozen stem: uint8 pictures (batch, size, size, 3) to feature maps, each network's
        own scaling inside; and the tail: these maps to one vector a picture.
    """
    x = inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="picture")
    network, options = name, {}
    if not callable(name):
        name, _, width = name.partition("-")
        networks = {n.lower(): n for n in dir(keras.applications) if n[0].isupper()}
        if name not in networks:
            raise ValueError(f"no network {name}: there are {', '.join(sorted(networks))}")
        network = getattr(keras.applications, networks[name])
        modules = [m for m in vars(keras.applications).values() if hasattr(m, "preprocess_input")]
        own = (m for m in modules if network in vars(m).values())
        module = next(own, keras.applications.mobilenet_v3)  # Which names none of its networks.
        x = module.preprocess_input(ops.cast(inputs, "float32"))
        options = {"alpha": float(width)} if width else {}
    whole = network(include_top=False, weights=weights, input_tensor=x, **options)

    steps, last_use = whole.operations, {}
    made = {id(step.output): i for i, step in enumerate(steps)}
    for i, step in enumerate(steps):
        for tensor in keras.tree.flatten(step.input):
            last_use[made.get(id(tensor), i)] = i
    joins = (layers.Add, layers.Concatenate, layers.MaxPooling2D, layers.AveragePooling2D)
    end, found = len(steps), 0
    for i in reversed(range(len(steps))):
        through_one = all(last_use.get(k, 0) <= i for k in range(i))
        if found < blocks and isinstance(steps[i], joins) and through_one:
            weights_after = [w for s in steps[i:end] for w in getattr(s, "weights", ())]
            found += any(len(w.shape) == 4 for w in weights_after)
            end = i
    if found < blocks:
        raise ValueError(f"it has {found} blocks to train, not {blocks}")
    cut = steps[end].output
    stem = keras.Model(inputs, cut, name="stem")
    tail = keras.Model(cut, layers.GlobalAveragePooling2D()(whole.output), name="tail")
    stem.trainable = False
    freeze_batch_norm(tail)
    return stem, tail


def build_heads(feature_dim=2048, num_classes=100, units=64, gated=True, auxiliary=True):
    """One vector a picture to probabilities, and the features that center loss pulls together.

    The main softmax sees a gated linear unit, the auxiliary one the vector itself.
    """
    x = keras.Input((feature_dim,), name="vector")
    features = x
    if gated:
        gate = layers.Dense(units, "sigmoid", name="gate")(x)
        features = layers.Dense(units, name="linear")(x) * gate
    softmax = {"activation": "softmax", "dtype": "float32"}  # In full precision, always.
    outputs = {"main": layers.Dense(num_classes, name="main", **softmax)(features)}
    if auxiliary:
        outputs["auxiliary"] = layers.Dense(num_classes, name="auxiliary", **softmax)(x)
    return keras.Model(x, outputs | {"features": features}, name="heads")


def build_training_model(models, centres=None):
    """The models one after the other, the last of them heads, with what the losses need.

    With centres, an Embedding of the classes, the class is an input, too, and the squared
    distance of the features to its centre an output, which is its own loss. Keras 3 trains what
    is trainable when it is used, not when it was compiled: compile anew for each stage.
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


def build_model(args, num_classes):
    """The four parts that all stages share: stem, tail, heads, and the centres or None."""
    stem, tail = networks.backbone_of(args, build_backbone)
    pieces = {"gated": "glu" not in args.without, "auxiliary": "auxiliary" not in args.without}
    heads = build_heads(tail.output.shape[-1], num_classes, **pieces)
    centres = layers.Embedding(num_classes, heads.output["features"].shape[-1])
    return stem, tail, heads, None if "center" in args.without else centres


def compiled(args, models, centres, num_steps):
    """The training model of a stage and its outputs. Ours is an Adam, the post's at last an SGD."""
    model = build_training_model(models, centres)
    ours = args.recipe == "ours"
    crossentropy = keras.losses.CategoricalCrossentropy(label_smoothing=0.1 if ours else 0.0)
    losses = {"main": crossentropy, "auxiliary": crossentropy, "distance": output_is_loss}
    weights = {"main": 1.0, "auxiliary": 0.25, "distance": 0.25}
    losses = {name: losses[name] for name in losses if name in model.output}
    optimizer = keras.optimizers.Adam(1e-3)
    if len(models) > 1:
        post = keras.optimizers.SGD(args.learning_rate, momentum=0.9)
        optimizer = networks.decaying_adam(model, args, num_steps) if ours else post
    loss_weights, measures = {name: weights[name] for name in losses}, {"main": "accuracy"}
    model.compile(optimizer, losses, loss_weights, measures, **networks.how(args))
    return model, list(losses)


# --- Data ---
def load_data(args, draw=0):
    """{"train" | "valid" | "test" | "unlabelled": (sources, labels)}, class names and notes.

    Sources are paths or arrays. A share of the training pictures can play unlabelled ones.
    """
    unlabelled, share = pictures.folder_or_share(args.unlabelled)
    if args.data is None:
        splits, names, notes = pictures.draw_dogs(args)
    else:
        parts = (args.valid, args.test, unlabelled, args.shares, draw)
        splits, names, notes = pictures.load_folder(args.data, *parts)
        notes = {"name": Path(args.data).resolve().name} | notes
    if share:
        splits = pictures.hide_labels(splits, share)
    if args.unlabelled is not None and not len(splits["unlabelled"][1]):
        fail(f"--unlabelled {args.unlabelled}: no picture whose label could be guessed")
    return splits, names, notes | {f"num_{s}": len(y) for s, (_, y) in splits.items()}


def make_view(labels, without, kind, row, number, rng, read):
    """A view of picture `row` for stages.Views; labels are -1 where none is known."""
    if kind == "plain":
        return read(row)
    if kind == "test":
        return pictures.fixed_view(read(row), *number)
    if kind == "ours":
        return pictures.crop_and_colour(read(row), rng)
    if kind == "full" and "splices" not in without and labels[row] >= 0 and rng.random() < 0.5:
        mate = rng.choice(np.flatnonzero(labels == labels[row]))
        return splice(read(row), read(mate), rng.integers(4), rng.uniform(0.25, 0.75))
    settings = {"light": kind == "light", "masks": "masks" not in without}
    return augment(read(row), lambda: read(rng.integers(len(labels))), rng, **settings)


# --- Training ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--recipe", choices=("post", "ours", "probe"), help="probe: logistic regression")
    add("--without", nargs="+", choices=stages.PIECES, default=[], help="pieces to leave out")
    add("--backbone", metavar="NAME", help="small, or of keras.applications; post: xception")
    add("--weights", metavar="imagenet|none|drawn|PATH", help="drawn: learnt from other breeds")
    add("--image-size", type=int, metavar="N", help="pixels of a side; post: 299")
    add("--blocks", type=int, help="last blocks of the backbone that are trained; post: 2")
    add("--valid", metavar="DIR", help="validation pictures; default: a share of the others")
    add("--test", metavar="DIR", help="test pictures; default: likewise")
    add("--shares", type=float, nargs=2, metavar=("TEST", "VALID"), help="default: 0.1 0.1")
    add("--draws", type=int, default=1, help="different splits, each trained on and tested")
    add("--unlabelled", metavar="DIR|SHARE", help="for pseudo-labels; SHARE: hide so many labels")
    add("--breeds", type=int, help="drawn breeds, at most 80")
    add("--num-train", type=int, help="drawn pictures of each breed to train on")
    add("--epochs", type=int, nargs="+", metavar="N", help="of each stage; ours: one number")
    add("--steps", type=int, help="batches of 32 in an epoch; default: one pass; post: 600")
    add("--views", type=int, help="augmented views of each picture whose features are kept")
    add("--maps", type=Path, metavar="DIR", help="keep the features there, for other runs too")
    add("--fresh", action="store_true", help="new views in each epoch of stages 2 and 3, as post")
    add("--learning-rate", type=float, help="of stages 2 and 3; post: 1e-4")
    add("--decay", type=float, default=0.8, help="ours: of the rate, from block to block")
    add("--mixup", type=float, default=0.2, help="ours: 0 for none")
    add("--tta", type=int, help="views of each test picture")
    add_data_parallel(parser)
    quick = {"recipe": "post", "shares": [0.1, 0.1], "breeds": 20, "num_train": 40, "tta": 1}
    quick |= {"views": 4}
    tiny = {"breeds": 3, "num_train": 8, "views": 2, "epochs": [2, 2, 2], "steps": 2}
    post = {"backbone": "xception", "image_size": 299, "weights": "imagenet", "views": 10}
    presets = {
        "smoke": quick | tiny | {"image_size": 32},
        "quick": quick,
        "full": quick | {"recipe": "ours", "fresh": True, "tta": 4},
        "post": quick | post | {"epochs": [10, 10, 10], "steps": 600, "fresh": True},
    }
    return stages.settle(parse_run_args(parser, presets, argv))


def main(argv=None):
    args = parse_args(argv)
    parallel = DataParallel(args)
    drawn = [load_data(args, draw) for draw in range(args.draws)]
    run = Run(args, "dog_finetune", [notes["sha256"] for *_, notes in drawn])
    functions, notes = (compiled, make_view, sample_pairs, choose_blend), drawn[0][2]
    done, history, learnt = [], [], []
    print(", ".join(f"{k} {v}" for k, v in notes.items() if k != "sha256"))
    for draw, (splits, names, _) in enumerate(drawn):
        keras.utils.set_random_seed(args.seed)
        parts = build_model(args, len(names))
        shared = (args, run, parallel, functions)
        training = stages.Training(shared, draw, splits, len(names), parts)
        done.append(training.all_stages())
        history += training.history
        learnt.append(training.details)
    report.save_model(run, parts)
    metrics, details, captions = report.report(run, drawn, done, learnt, choose_blend)
    run.history = history
    return run.finish(
        row=report.row_name(args, notes["name"]),
        data=notes,
        metrics=metrics,
        selection=report.selection(args, notes),
        details=details,
        pictures=captions,
    )


if __name__ == "__main__":
    run_script(main)
