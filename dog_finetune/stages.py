"""The stages of a training, one after the other."""

import functools
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from common.damage import first_line
from common.run import fail, keras, layers
from data import dogs
from dog_finetune import features
from dog_finetune.networks import fit_linear_probe, how
from dog_finetune.pictures import MOST_VIEWS
from dog_finetune.report import best_blend, mixed

PIECES = ("glu", "center", "auxiliary", "splices", "masks", "light", "pseudo")
# What --weights drawn learns: so many breeds, pictures of each, epochs.
OTHERS, PER_OTHER, PRETRAIN_EPOCHS = 40, 80, 4
# Of the probe, tried from the strongest on; the default is for runs without validation pictures.
PENALTIES, DEFAULT_PENALTY = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5), 1e-3


# --- Settings ---
def settle(args):
    """Fills in what depends on the data and on the recipe, and refuses what makes no sense."""
    drawn = args.data is None
    ours, probe = args.recipe == "ours", args.recipe == "probe"
    defaults = {
        "backbone": "small" if drawn else "mobilenetv2",
        "image_size": 64 if drawn else 224,
        "weights": "drawn" if drawn else "imagenet",
        "epochs": [] if probe else [12] if ours else [30, 10, 10],
        "learning_rate": 3e-4 if ours else 1e-3 if drawn else 1e-4,
        "blocks": 2 if not ours else 3 if drawn else 8,
    }
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if probe or ours:
        if args.without:
            fail("--without leaves out pieces of --recipe post")
        args.without = list(PIECES)
    if probe:
        args.fresh = False
    if args.unlabelled is None and "pseudo" not in args.without:
        args.without = [*args.without, "pseudo"]
    args.without = sorted(set(args.without))
    folder = os.path.isdir(args.unlabelled or "")
    if folder and "pseudo" in args.without:
        fail(f"--unlabelled {args.unlabelled}: only the post's recipe with pseudo-labels uses it")
    if drawn and (args.valid or args.test or folder):
        fail("--valid, --test and a folder of --unlabelled are for --data")
    stages = 0 if probe else 1 if ours else 3
    if args.smoke:
        args.epochs = args.epochs[:stages]
    if len(args.epochs) != stages:
        fail(f"--epochs: recipe {args.recipe} takes {stages} numbers, not {len(args.epochs)}")
    numbers = (args.image_size, args.blocks, args.draws, args.num_train, args.views, args.tta)
    steps = 1 if args.steps is None else args.steps  # None: as many as an epoch needs.
    if not min(*numbers, *args.epochs, steps) > 0 or not 0 < args.learning_rate < np.inf:
        fail("expected sizes, epochs, steps and the learning rate above 0")
    if not 0 <= args.mixup < np.inf or not 0 < args.decay <= 1 or args.tta > MOST_VIEWS:
        fail(f"expected --mixup of 0 or more, --decay up to 1, --tta up to {MOST_VIEWS}")
    if not ours and (args.mixup, args.decay) != (0.2, 0.8):
        fail("--mixup and --decay are of --recipe ours")
    if min(args.shares) < 0 or sum(args.shares) >= 0.9 or args.shares[0] == 0:
        fail("--shares: expected two parts of 1, as 0.1 0.1; the second may be 0")
    if not 1 < args.breeds <= dogs.NUM_BREEDS - 20:
        fail(f"--breeds: expected 2 to {dogs.NUM_BREEDS - 20}; the others teach the network")
    if args.draws > 1 and drawn:
        fail("--draws: drawn dogs are drawn as train, valid and test; splits are of --data")
    if not drawn and args.weights == "drawn":
        fail("--weights drawn is for drawn dogs: give imagenet, none or a file")
    return args


# --- Training ---
def pretrain(training):
    """Stage 0 of --weights drawn: the whole network learns breeds that are not asked for later.

    A network of random weights has no features to train heads on, and drawn dogs need no
    download. This is the only time that BatchNormalization learns its statistics.
    """
    args, run, prefix = training.args, training.run, training.prefix
    stem, tail = training.stem, training.tail
    others = range(args.breeds, min(args.breeds + OTHERS, dogs.NUM_BREEDS))
    per_breed, epochs = (4, 2) if args.smoke else (PER_OTHER, PRETRAIN_EPOCHS)
    drawn = {s: dogs.load(s, others, n) for s, n in (("train", per_breed), ("valid", 4))}
    views, valid = (training.views_of(x, y) for x, y in drawn.values())
    labels, shares = drawn["train"][1], np.eye(len(others), dtype="float32")[drawn["valid"][1]]
    x = keras.Input(stem.input.shape[1:], dtype=stem.input.dtype, name="x")
    outputs = {"main": layers.Dense(len(others), "softmax")(tail(stem(x)))}
    model = keras.Model({"x": x}, outputs)
    frozen = [layer for layer in tail.layers if not layer.trainable]
    stem.trainable = tail.trainable = True
    for layer in (*stem.layers, *tail.layers):
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # So short a training needs statistics that keep up.
    steps = max(1, len(labels) // 32)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps * epochs)
    crossentropy = {"main": "categorical_crossentropy"}
    model.compile(
        keras.optimizers.Adam(rate), crossentropy, metrics={"main": "accuracy"}, **how(args)
    )
    history, _ = train_stage(
        *(run, training.parallel, f"{prefix}stage0", model),
        functools.partial(
            features.batches,
            *(features.from_views(views, "plain"), labels, draw_32, ["main"], len(others)),
            *((args.seed, 0), steps),
        ),
        *(steps, epochs),
        features.with_targets(plain_pictures(valid), shares, ["main"]),
    )
    stem.trainable = False
    for layer in frozen:
        layer.trainable = False
    return history


def load_best(model, path):
    try:
        model.load_weights(path)
    except Exception as error:
        fail(f"{path} is missing or damaged: {first_line(error)}")


def evaluate(model, data):
    return model.evaluate(*data, batch_size=64, verbose=0, return_dict=True)


def draw_32(labels, rng):
    return rng.choice(len(labels), min(32, len(labels)), replace=False)


def plain_pictures(views):
    return np.stack(list(views.in_order(("plain", row) for row in range(len(views.sources)))))


def train_stage(run, parallel, name, model, make_batches, steps, epochs, valid):
    """Trains or goes on; leaves the model at its best validation epoch. Returns the history.

    Without validation pictures (valid is None) the last epoch is taken.
    """
    print(name, flush=True)
    accuracy = "accuracy" if len(model.outputs) == 1 else "main_accuracy"
    checkpoint = run.checkpoint(model, f"val_{accuracy}" if valid else None, prefix=f"{name}-")
    start, first_epoch = time.time(), len(run.history)
    if first_epoch < epochs:
        with parallel.spread(model):
            model.fit(
                parallel.own_rows(make_batches(first_epoch)),
                steps_per_epoch=steps,
                initial_epoch=first_epoch,
                epochs=epochs,
                validation_data=valid and parallel.even(valid),
                validation_batch_size=64,
                callbacks=[checkpoint],
                shuffle=False,
                verbose=run.verbose,
            )
    seconds = None if run.args.resume else time.time() - start
    if valid:
        load_best(model, run.dir / f"{name}-model.keras")
    if model.optimizer.use_ema:  # The running mean of the weights, if it does as well.
        with parallel.spread(model):
            best = model.get_weights()
            scores = [evaluate(model, parallel.even(valid))[accuracy] if valid else 0.0]
            model.optimizer.finalize_variable_values(model.trainable_variables)
            scores.append(evaluate(model, parallel.even(valid))[accuracy] if valid else 0.0)
        if scores[1] < scores[0]:
            model.set_weights(best)
    return [{"stage": name} | entry for entry in run.history], seconds


def plan(args):
    """(stage, kind of views, whether only the heads learn, epochs) of each stage."""
    if args.recipe != "post":  # The probe is no matter of epochs, and where ours starts.
        return [("stage1", "plain", True, 0)] + [("stage2", "ours", False, n) for n in args.epochs]
    light = "full" if "light" in args.without else "light"
    first, second, third = args.epochs
    chosen = [("stage1", "full", True, first)]
    for name in ("stage", "pseudo")[: 1 if "pseudo" in args.without else 2]:
        chosen += [(f"{name}2", "full", False, second), (f"{name}3", light, False, third)]
    return chosen


class Training:
    """One training, through all stages, on one split of the pictures.

    `shared` are the settings, the Run, its DataParallel, and train.py's functions compiled,
    make_view, sample_pairs and choose_blend.
    """

    def __init__(self, shared, draw, splits, num_classes, parts):
        self.args, self.run, self.parallel, functions = shared
        args, self.splits, self.num_classes = self.args, splits, num_classes
        self.data_sha256 = self.run.record["arguments"]["data_sha256"][draw]
        self.prefix = f"draw{draw}-" if args.draws > 1 else ""
        self.stem, self.tail, self.heads, self.centres = parts
        self.compiled, self.make_view, self.sample, self.choose = functions
        self.history, self.details = [], {}

    def all_stages(self):
        """{stage: {split: {head: probabilities (n, views, classes)}}}."""
        (sources, labels), (others, hidden) = self.splits["train"], self.splits["unlabelled"]
        if "pseudo" in self.args.without:
            others = []
        self.labels = np.append(labels, np.full(len(others), -1))
        scorer, found = keras.Model(self.tail.input, self.heads(self.tail.output)), {}
        with ThreadPoolExecutor(os.cpu_count()) as self.pool:
            if self.args.weights == "drawn":
                self.history = pretrain(self)
            self.views = self.views_of([*sources, *others], self.labels)
            scored = [s for s, (x, _) in self.splits.items() if len(x) and s != "train"]
            if not len(others):
                scored = [s for s in scored if s != "unlabelled"]
            maps = {split: self.fixed_maps(split) for split in scored}
            for number, (stage, kind, only_heads, epochs) in enumerate(plan(self.args), 1):
                if stage == "pseudo2":
                    share = best_blend(found["stage3"], self.splits, self.choose)
                    guesses = mixed(found["stage3"]["unlabelled"], share).argmax(-1)
                    self.labels[len(sources) :] = guesses
                    self.details |= about_guesses(guesses, hidden)
                get = self.train_inputs(kind, only_heads)
                valid = self.valid_inputs(maps["valid"], only_heads) if "valid" in maps else None
                if not epochs:
                    self.probe(get, valid)
                else:
                    self.one_stage(number, stage, get, valid, only_heads, epochs)
                found[stage] = {split: score(scorer, maps[split]) for split in maps}
        return found

    def views_of(self, sources, labels):
        make = functools.partial(self.make_view, labels, self.args.without)
        return features.Views(sources, self.args.image_size, self.args.seed, make, self.pool)

    def fixed_maps(self, split):
        """What the stem makes of the test-time views of pictures that are not trained on."""
        views = self.views_of(self.splits[split][0], None)
        path = self.path(f"{split}-maps", self.stem, views, self.args.tta)
        return features.view_maps(path, self.stem, views, "test", self.args.tta)

    def path(self, name, model, views, count):
        """Where a map is kept: in the run folder, or in --maps, for runs that need the same one."""
        if self.args.maps is None:
            return self.run.dir / f"{self.prefix}{name}.npy"
        args, pieces = self.args, {"splices", "masks"} & set(self.args.without)
        shape = (len(views.sources), count)  # Fewer sources if no pseudo-labels are wanted.
        settings = (
            features.VERSION,
            keras.backend.backend(),
            args.seed,
            args.image_size,
            args.unlabelled,
            sorted(pieces),
            shape,
        )
        digest = hashlib.sha256(f"{self.data_sha256} {settings}".encode())
        for weight in model.weights:
            digest.update(np.ascontiguousarray(weight))
        args.maps.mkdir(parents=True, exist_ok=True)
        return args.maps / f"{name}-{digest.hexdigest()[:16]}.npy"

    def train_inputs(self, kind, only_heads):
        """What features.batches gets its inputs by: kept vectors, kept maps or fresh pictures."""
        fresh, stem = self.args.fresh, self.stem
        if fresh and not only_heads:
            return features.from_views(self.views, kind)
        name = f"{kind}-maps"
        if fresh:  # Nothing later needs more of a picture than its vector.
            name, stem = f"{kind}-vectors", keras.Model(stem.input, self.tail(stem.output))
        count = 1 if kind == "plain" else self.args.views
        path = self.path(name, stem, self.views, count)
        kept = features.view_maps(path, stem, self.views, kind, count)
        if only_heads and not fresh:
            vectors = self.run.dir / f"{self.prefix}{kind}-vectors.npy"
            kept = features.fill_again(vectors, self.tail, kept)
        return features.from_maps(kept)

    def valid_inputs(self, maps, only_heads):
        """The validation pictures as the models of this stage take them."""
        if only_heads:
            return features.predict(self.tail, maps[:, 0])
        if self.args.fresh:
            return plain_pictures(self.views_of(self.splits["valid"][0], None))
        return maps[:, 0].astype("float32")

    def probe(self, get, valid):
        """In the place of a stage: the softmax that L-BFGS finds, its penalty by validation."""
        rows = [(row,) for row in range(len(self.labels))]
        [(_, _, x)] = get([(rows, np.random.default_rng(0))])
        tried = PENALTIES if valid is not None else (DEFAULT_PENALTY,)
        fits = [fit_linear_probe(x, self.labels, self.num_classes, penalty) for penalty in tried]
        best = 0
        if valid is not None:
            truth = self.splits["valid"][1]
            right = [((valid @ w + b).argmax(-1) == truth).mean().item() for w, b in fits]
            best = int(np.argmax(right))
            self.details["validation accuracy"] = dict(zip(map(str, tried), right, strict=True))
        self.details["penalty"] = tried[best]
        self.heads.get_layer("main").set_weights(fits[best])

    def one_stage(self, number, stage, get, valid, only_heads, epochs):
        args, labels = self.args, self.labels
        models = [self.heads] if only_heads else [self.tail, self.heads]
        models = [self.stem, *models] if args.fresh and not only_heads else models
        batch_size = 2 * min(16, self.num_classes)
        steps = args.steps or -(-(labels >= 0).sum() // batch_size)
        model, outputs = self.compiled(args, models, self.centres, steps * epochs)
        if valid is not None:
            shares = np.eye(self.num_classes, dtype="float32")[self.splits["valid"][1]]
            valid = features.with_targets(valid, shares, outputs)
        mixup = args.mixup if args.recipe == "ours" else 0.0
        make_batches = functools.partial(
            *(features.batches, get, labels, self.sample, outputs, self.num_classes),
            *((args.seed, number), steps),
            mixup=mixup,
        )
        name = self.prefix + stage
        entries, seconds = train_stage(
            *(self.run, self.parallel, name, model, make_batches, steps, epochs, valid)
        )
        self.history += entries
        if seconds:  # Not known of a stage that was stopped and resumed.
            speeds = self.details.setdefault("pictures per second", {})
            speeds[stage] = round(float(steps * epochs * batch_size / seconds), 1)


def about_guesses(guesses, hidden):
    details = {"pseudo-labels": len(guesses)}
    if (hidden >= 0).any():  # Of pictures whose labels were only hidden.
        right = (guesses == hidden)[hidden >= 0].mean()
        details["pseudo-labels that are right"] = round(float(right), 4)
    return details


def score(scorer, maps):
    """{head: probabilities (n, views, classes)}."""
    outputs = features.predict(scorer, maps.reshape(-1, *maps.shape[2:]))
    outputs.pop("features")
    return {head: p.reshape(*maps.shape[:2], -1) for head, p in outputs.items()}
