"""Cloze: fill the blank of a Chinese story with a word of that story, by pointing at it.

Post:   https://kexue.fm/archives/4564 (2017), for the CMRC2017 contest: the passage, cut at its
        blank, goes through one two-layer BiLSTM; 73.55% of the validation questions right.
Data:   written stories (data/stories.py); --text: any stories; --data: the official files.

    python cloze_ccl/train.py                                  # our reader, written stories
    python cloze_ccl/train.py --model post                     # the post's, same data
    python cloze_ccl/train.py --preset full --text stories.txt --vectors vectors.txt
    python cloze_ccl/train.py --preset post --data CMRC2017 --vectors vectors.txt
    python cloze_ccl/predict.py                                # ten questions, answered

Writes runs/cloze_ccl/NAME/. texts.py reads files, batches.py makes batches, reading.py judges.
"""

import argparse

import numpy as np
from tqdm import tqdm

from cloze_ccl import batches, reading, texts
from common.run import Run, fail, keras, layers, load_file, ops, parse_run_args, run_script
from data import stories

INGREDIENTS = "characters", "features", "neighbours", "second-reading", "dropout", "summed-loss"


# --- Readers (they need only keras; copy them) ---
def read_both_ways(rnns, x, inside):
    """States (batch, words, 2 * units) and ends (batch, 2 * units) of two RNNs, one for each way.

    As from layers.Bidirectional with the mask `inside` (batch, words), False beyond the end of a
    row of x; but with JAX and torch no RNN that has a mask runs on cuDNN.
    """
    inside = ops.cast(inside, "int32")
    ones = ops.ones_like(inside)
    place, width = ops.cumsum(ones, axis=1) - 1, ops.sum(ones, axis=1, keepdims=True)
    last = ops.sum(inside, axis=1, keepdims=True) - 1
    turned = ops.where(place <= last, last - place, place) + ops.cumsum(width, axis=0) - width

    def turn(y):
        return ops.take(ops.reshape(y, (-1, y.shape[-1])), turned, axis=0)

    forward, backward = rnns[0](x), rnns[1](turn(x))
    at_end = ops.expand_dims(ops.cast(ops.equal(place, last), forward.dtype), -1)
    ends = ops.sum(ops.concatenate([forward, backward], axis=-1) * at_end, axis=1)
    return ops.concatenate([forward, turn(backward)], axis=-1), ends


def build_reader(
    vocabulary_size, match="states", num_layers=2, units=128, embedding_dim=128, vectors=None
):
    """The post's: both sides of the blank through the same BiLSTMs, whose ends are the question.

    Inputs: word ids of the two sides, "left" and "right" (batch, words) in any order, as they are
    treated alike: 1 to vocabulary_size, 0 = unknown, -1 beyond the end. Output: log-probabilities
    (batch, words of left + words of right). vectors (vocabulary_size, embedding_dim) stay as they
    are, but for unknown words; without them the word vectors are learnt. match="words" compares
    the question, made as long by a Dense layer, with word vectors in place of states.
    """
    sides = [keras.Input((None,), dtype="int32", name=name) for name in ("left", "right")]
    words = layers.Embedding(vocabulary_size + 1, embedding_dim, name="words")
    unknown = layers.Embedding(1, embedding_dim, name="unknown")
    lstms = [layers.LSTM(units, return_sequences=True) for _ in range(2 * num_layers)]
    ends, matched = [], []
    for side in sides:
        ids = ops.maximum(side, 0)
        x = words(ids)
        if vectors is not None:
            x = x + unknown(0 * ids) * ops.cast(ops.expand_dims(ops.equal(ids, 0), -1), "float32")
        word_vectors = x
        for i in range(num_layers):
            x, end = read_both_ways(lstms[2 * i : 2 * i + 2], x, side >= 0)
        ends.append(end)
        matched.append(x if match == "states" else word_vectors)
    if vectors is not None:
        words.trainable = False
        words.set_weights([np.concatenate([np.zeros((1, embedding_dim)), vectors])])
    question = (ends[0] + ends[1]) / 2
    if match == "words":
        question = layers.Dense(embedding_dim, use_bias=False)(question)
    question = ops.expand_dims(question, 1)
    scores = [ops.sum(x * question, axis=-1) for x in matched]
    # Padding is out before the softmax, not after.
    scores = [ops.where(side >= 0, s, -1e9) for s, side in zip(scores, sides, strict=True)]
    scores = ops.log_softmax(ops.concatenate(scores, axis=1))
    return keras.Model({"left": sides[0], "right": sides[1]}, scores)


def build_attention_sum_reader(vocabulary_size, units=128, embedding_dim=128, vectors=None):
    """AS Reader (Kadlec et al. 2016): states of a BiGRU of the passage times ends of the query's.

    Inputs: "document" and "query" (batch, words), ids as above; BLANK has id 1 and is no answer.
    Output: log-probabilities (batch, words of document). Its loss sums: pointer_sum_loss.
    """
    document = keras.Input((None,), dtype="int32", name="document")
    query = keras.Input((None,), dtype="int32", name="query")
    words = layers.Embedding(vocabulary_size + 1, embedding_dim, name="words")
    read, ask = ([layers.GRU(units, return_sequences=True) for _ in range(2)] for _ in range(2))
    states, _ = read_both_ways(read, words(ops.maximum(document, 0)), document >= 0)
    _, question = read_both_ways(ask, words(ops.maximum(query, 0)), query >= 0)
    if vectors is not None:
        words.set_weights([np.concatenate([np.zeros((1, embedding_dim)), vectors])])
    scores = ops.sum(states * ops.expand_dims(question, 1), axis=-1)
    scores = ops.where((document >= 0) & (document != 1), scores, -1e9)
    return keras.Model({"document": document, "query": query}, ops.log_softmax(scores))


def build_context_reader(
    vocabulary_size,
    num_characters,
    num_features=9,
    units=128,
    embedding_dim=128,
    dropout=0.3,
    vectors=None,
    num_trained=None,
    without=(),
):
    """Ours: a BiGRU over the whole passage, asked with its state at the blank.

    A word is known by a learnt vector, plus a fixed one if there are `vectors`, and by its first
    and last character. It scores by its state, by its neighbours (do they resemble those of the
    blank, would it fit between those?) and by features that name no word. A second BiGRU reads
    again, now knowing the question.

    Inputs: "document" (batch, words) ids, the blank is 1; "characters" (batch, words, 2);
    "features" (batch, words, num_features). Output: log-probabilities (batch, words).
    num_trained: how many words get a learnt vector, by default all; without: parts left out.
    """
    document = keras.Input((None,), dtype="int32", name="document")
    characters = keras.Input((None, 2), dtype="int32", name="characters")
    features = keras.Input((None, num_features), name="features")
    dropout = 0 if "dropout" in without else dropout
    num_trained = num_trained or vocabulary_size
    inside = document >= 0
    at_blank = ops.cast(ops.expand_dims(ops.equal(document, 1), -1), "float32")

    ids = ops.maximum(document, 0)
    learnt = layers.Embedding(num_trained + 1, embedding_dim, name="words")
    x = learnt(ops.where(ids <= num_trained, ids, 0))
    if vectors is not None:
        fixed = layers.Embedding(vocabulary_size + 1, embedding_dim, trainable=False, name="fixed")
        x = x + fixed(ids)
        fixed.set_weights([np.concatenate([np.zeros((1, embedding_dim)), vectors])])
    if "characters" not in without:
        width = max(1, embedding_dim // 4)
        letters = layers.Embedding(num_characters + 1, width, name="letters")(characters)
        letters = layers.Reshape((-1, 2 * width))(letters)
        x = ops.concatenate([x, letters], axis=-1)
    x = x * ops.cast(ops.expand_dims(inside, -1), "float32")
    x = layers.Dropout(dropout)(x)

    def bigru(x):
        rnns = [layers.GRU(units, return_sequences=True) for _ in range(2)]
        return layers.Dropout(dropout)(read_both_ways(rnns, x, inside)[0])

    def asked(states, width, name):
        """What is asked with the state at the blank: (batch, 1, width)."""
        return layers.Dense(width, name=name)(ops.sum(states * at_blank, axis=1, keepdims=True))

    states = bigru(x if "features" in without else ops.concatenate([x, features], axis=-1))
    question = asked(states, 2 * units, "question")
    if "second-reading" not in without:
        states = bigru(ops.concatenate([states, states * question], axis=-1))
        question = asked(states, 2 * units, "second_question")
    scores = ops.sum(states * question, axis=-1)
    if "neighbours" not in without:
        y = ops.pad(x, ((0, 0), (2, 2), (0, 0)))
        around = ops.concatenate([y[:, :-4], y[:, 1:-3], y[:, 3:-1], y[:, 4:]], axis=-1)
        around = layers.Dense(units, activation="tanh", name="around")(around)
        scores = scores + ops.sum(around * asked(around, units, "resemble"), axis=-1)
        word, both = layers.Dense(units, name="word")(x), ops.concatenate([states, around], axis=-1)
        scores = scores + ops.sum(word * asked(both, units, "fit"), axis=-1)
    if "features" not in without:
        hidden = layers.Dense(16, activation="relu", name="hidden")(features)
        scores = scores + ops.squeeze(layers.Dense(1, name="worth")(hidden), axis=-1)
    scores = ops.where(inside & (document != 1), scores, -1e9)
    inputs = {"document": document, "characters": characters, "features": features}
    return keras.Model(inputs, ops.log_softmax(scores))


# --- Loss and answer (they need only keras; copy them) ---
def pointer_loss(targets, log_probabilities):
    """The post's: -log p, meant over all places of the answer, where targets are 1: (batch,).

    Each of the places must be pointed at. Without any place the loss is 0, not NaN.
    """
    placed = ops.where(targets > 0, log_probabilities, 0.0)  # In float16 0 * -inf would be NaN.
    return -ops.sum(placed, -1) / ops.cast(ops.maximum(ops.sum(targets, -1), 1), placed.dtype)


def pointer_sum_loss(targets, log_probabilities):
    """-log of the sum of p over the places of the answer: it is enough to point at one."""
    found = ops.logsumexp(ops.where(targets > 0, log_probabilities, -1e9), axis=-1)
    return ops.where(ops.any(targets > 0, axis=-1), -found, 0.0)


def sum_by_word(probabilities, words):
    """[(word, probability, its places)], the best first: the places of equal words are added."""
    found = {}
    for place, (probability, word) in enumerate(zip(probabilities, words, strict=True)):
        total, places = found.get(word, (0.0, []))
        found[word] = total + float(probability), [*places, place]
    return [(w, p, at) for w, (p, at) in sorted(found.items(), key=lambda entry: -entry[1][0])]


def build_model(kind, **sizes):
    """The reader of this name: post, as-reader or ours."""
    builders = {"post": build_reader, "as-reader": build_attention_sum_reader}
    return (builders | {"ours": build_context_reader})[kind](**sizes)


# --- Data ---
def load_data(source=None, story_files=(), tests=(), num_stories=1500):
    """{"train" | "valid" | name of a test set: Questions} and notes for the record.

    source: a file of questions, or a folder with train.doc_query and train.answer, and the test
    set cloze.valid.doc_query. story_files: to make questions of. tests: files of questions, no
    story of which is trained on. Where there are none, a test set is held out, "test".
    """
    if source or story_files:
        name, data, left_out = texts.load_files(source, story_files, tests)
    else:
        name, left_out = f"written stories v{stories.VERSION}", {}
        shares = {"train": 1, "valid": 10, "test": 5}
        data = {p: stories.load(p, max(10, num_stories // share)) for p, share in shares.items()}
        if tests:
            data = {part: data[part] for part in ("train", "valid")} | texts.read_tests(tests)
    for part in ("train", "valid"):
        data[part], reasons = texts.usable_only(data[part])
        left_out |= {f"{part}: {reason}": count for reason, count in reasons.items()}
    if empty := [part for part, some in data.items() if not some]:
        fail(f"{name}: no question left for {empty[0]}; left out: {left_out or 'none'}")
    notes = {"name": name} | {f"num_{part}": len(some) for part, some in data.items()}
    return data, notes | {"left_out": left_out, "sha256": texts.fingerprint(data)}


# --- Main ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", choices=batches.KINDS, help="the post's, AS Reader, or ours")
    add("--match", choices=("states", "words"), default="states", help="of --model post")
    add("--num-layers", type=int, default=2, help="of --model post; default: 2")
    add("--without", nargs="+", choices=INGREDIENTS, default=[], help="of ours: leave out")
    add("--text", nargs="+", default=[], metavar="FILE", help="make questions of these stories")
    add("--test", nargs="+", default=[], metavar="FILE", help="questions to test on, read once")
    add("--vectors", metavar="FILE", help="word vectors in word2vec's text format")
    add("--units", type=int, help="of each direction; post: 128")
    add("--embedding-dim", type=int, help="of words, without --vectors; post: 128")
    add("--epochs", type=int, help="the best on validation is kept; post: 30")
    add("--batch-size", type=int, help="post: 160")
    add("--learning-rate", type=float, help="of Adam; ours ends at 0; post: 0.001")
    add("--min-count", type=int, default=2, help="rarer words are unknown; post: 2")
    add("--num-stories", type=int, help="written stories to train on, three questions each")
    small = {"model": "ours", "units": 64, "embedding_dim": 64, "batch_size": 64}
    small |= {"num_stories": 1500, "epochs": 3, "learning_rate": 3e-3}
    large = {"units": 128, "embedding_dim": 128, "num_stories": 10_000, "learning_rate": 1e-3}
    presets = {
        "smoke": small | {"units": 8, "embedding_dim": 8, "epochs": 2, "num_stories": 30},
        "quick": small,
        "full": large | {"model": "ours", "epochs": 3, "batch_size": 64},
        "post": large | {"model": "post", "epochs": 30, "batch_size": 160},
    }
    return parse_run_args(parser, presets, argv)


def check(args):
    """A combination of flags that makes no sense is one line."""
    sizes = args.batch_size, args.units, args.embedding_dim, args.num_layers, args.num_stories
    if min(*sizes, args.epochs, args.min_count) < 1 or not 0 < args.learning_rate < np.inf:
        fail("every number of a flag starts at 1, --learning-rate above 0")
    if args.without and args.model != "ours":
        fail("--without is of --model ours")
    if args.model != "post" and (args.match, args.num_layers) != ("states", 2):
        fail("--match and --num-layers are of --model post")
    if args.data and args.text:
        fail("give --data or --text, not both")


def row_name(args, data):
    """The line of the README's table that a run belongs to."""
    what = {"post": "the post's reader", "as-reader": "AS Reader", "ours": "ours"}[args.model]
    what += ", matching words" * (args.match == "words")
    what += f", {args.num_layers} layer(s)" * (args.num_layers != 2)
    what += "".join(f", without {name}" for name in args.without)
    what += ", with vectors" * bool(args.vectors)
    return f"{'smoke' if args.smoke else args.preset} x {args.epochs}, {data}: {what}"


def main(argv=None):
    args = parse_args(argv)
    check(args)
    vectors = texts.read_vectors(args.vectors) if args.vectors else ((), None)
    data, notes = load_data(args.data, args.text, args.test, args.num_stories)
    index, kind = {}, args.model
    encoded = {part: batches.encode_all(questions, index) for part, questions in data.items()}
    train, valid = encoded.pop("train"), encoded.pop("valid")
    vocabulary, characters, sizes = batches.choose_words(
        kind, train, index, args.min_count, args.embedding_dim, *vectors
    )
    own = {"post": ("match", "num_layers"), "ours": ("without",)}
    sizes |= {name: getattr(args, name) for name in own.get(kind, ())}
    lookup = batches.Lookup(index, vocabulary, characters)
    used = {"vectors": batches.fingerprint(index, *vectors)} if args.vectors else {}
    run = Run(args, "cloze_ccl", [notes["sha256"], *used.values()])
    print(*(f"{name}: {note}" for name, note in notes.items() if name != "sha256"), sep=", ")
    batches.save_words(run.dir / "words.json", kind, vocabulary, characters)

    model = build_model(kind, units=args.units, **sizes)
    all_sizes, rate = batches.sizes(kind, train), args.learning_rate
    if kind == "ours":
        steps = len(batches.plan(all_sizes, args.batch_size)) * args.epochs
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = pointer_loss if kind == "post" or "summed-loss" in args.without else pointer_sum_loss
    model.compile(keras.optimizers.Adam(rate, clipnorm=None if kind == "post" else 10), loss)
    checkpoint = run.checkpoint(model, monitor="val_accuracy")
    for epoch in range(len(run.history), args.epochs):
        checkpoint.on_train_batch_begin(0)
        order, losses = batches.plan(all_sizes, args.batch_size, (args.seed, epoch)), []
        bar = tqdm(order, desc=f"epoch {epoch + 1} of {args.epochs}", disable=None, leave=False)
        for chosen, shape in bar:
            items = [train[i] for i in chosen]
            x, y, weights, _ = batches.build_batch(kind, items, shape, lookup, args.batch_size)
            losses.append(float(model.train_on_batch(x, y, sample_weight=weights)))
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
        found = reading.best_keys(valid, reading.read(model, kind, valid, lookup))
        right = sum(key == item.answer for key, item in zip(found, valid, strict=True))
        logs = {"loss": np.mean(losses), "val_accuracy": right / len(valid)}
        checkpoint.on_epoch_end(epoch, logs)
        print(f"epoch {epoch + 1}:", *(f"{k} {v:.4f}" for k, v in logs.items()), flush=True)

    # The weights only: TensorFlow traces a new model anew.
    model.set_weights(load_file(run.dir / "model.keras").get_weights())
    best = max(run.history, key=lambda entry: (entry["val_accuracy"], entry["epoch"]))
    metrics, details = reading.evaluate(model, kind, data, encoded, lookup, list(index), run.dir)
    details["validation accuracy"] = f"{best['val_accuracy']:.4f}"
    return run.finish(
        row=row_name(args, notes["name"]),
        data=notes,
        metrics=metrics,
        selection=f"best validation epoch {best['epoch']} of {args.epochs}",
        details=details | used,
        pictures={"attention.svg": "Test passages, each word as dark as it is probable"},
    )


if __name__ == "__main__":
    run_script(main)
