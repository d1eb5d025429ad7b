"""The questions of custom_loss: files that users bring, training, retrieval."""

import functools
import itertools
import json
from pathlib import Path

import numpy as np

from common.run import fail, keras, write_text
from common.table import proportion
from custom_loss.digits import SPLIT_SEED, apply, fit_best
from data import faq

PADDING, UNKNOWN = 0, 1  # The ids that stand for no character and for any unknown one.
LENGTH = 40  # Characters of a text that are read.
SHORTEST = 6  # Characters of a sentence of running text that can be a question or an answer.


# --- Files ---
def read_lines(path):
    """The lines of a UTF-8 file; a line in another encoding is a mistake that is named."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            yield number, line.decode("utf-8").strip(" \r\n\u3000")
        except UnicodeDecodeError:
            fail(f"{path} line {number} is not UTF-8: convert the file (GBK?) to UTF-8")


def read_pairs(path):
    """Rows (line number, question, answer, story) of a file.

    FILE.txt is running text, a sentence a line, an empty line between stories: each sentence is
    the question of the next one. Any other file has question<TAB>answer in a line; its story is
    the answer itself, unless empty lines part it into stories, too.
    """
    running, rows, story, previous = Path(path).suffix == ".txt", [], 0, ""
    for number, line in read_lines(path):
        line = line.strip() if running else line
        if not line:
            story, previous = story + 1, ""
        elif running:
            if "\t" in line:
                fail(f"{path} line {number}: a tab; is it question<TAB>answer? then name it .tsv")
            sentence = line.replace(" ", "")
            if min(len(previous), len(sentence)) >= SHORTEST:
                rows.append((number, previous, sentence, story))
            previous = sentence
        else:
            columns = [column.strip() for column in line.split("\t")]
            if len(columns) != 2 or not all(columns):
                found = f"{len(columns)} column{'s' * (len(columns) > 1)}"
                found = "an empty text" if len(columns) == 2 else found
                fail(f"{path} line {number}: expected question<TAB>answer, found {found}")
            rows.append((number, *columns, story))
    if not rows:
        fail(f"{path} holds no question with an answer")
    return rows


def split_pairs(path, rows):
    """{split: rows}, and whether all splits share their answers.

    Whole stories are kept together, and there no answer and no question comes twice: the second
    one is left out. Without stories the different questions of each answer are divided; one that
    has two answers counts for the first.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    splits = {"train": [], "valid": [], "test": []}
    stories = sorted({row[3] for row in rows})
    if Path(path).suffix == ".txt" or len(stories) > 1:
        order = rng.permutation(len(stories))
        ends = [round(0.8 * len(order)), round(0.9 * len(order))]
        parts = zip(splits, np.split(np.array(stories)[order], ends), strict=True)
        split_of = {story: split for split, part in parts for story in part.tolist()}
        questions, texts = set(), set()
        for row in rows:
            if row[1] not in questions and row[2] not in texts:
                splits[split_of[row[3]]].append(row)
            questions.add(row[1])
            texts.add(row[2])
        if min(map(len, splits.values())) < 2:
            fail(f"{path}: empty lines make {len(stories)} stories: too few to hold some out")
        return splits, False
    by_answer, lines, answer_of = {}, {}, {}
    for row in rows:
        number, question, answer, _ = row
        lines.setdefault(answer, number)
        mine = by_answer.setdefault(answer, {})
        if answer_of.setdefault(question, answer) == answer:
            mine.setdefault(question, row)
    for answer, mine in by_answer.items():
        mine = list(mine.values())
        if len(mine) < 3:
            need = "one each to train, validate and test (of two answers to one the first counts)"
            found = f"only {len(mine)} of 3 different questions have the answer {answer[:20]!r}"
            fail(f"{path} line {lines[answer]}: {found}; needed: {need}")
        test, valid, *train = rng.permutation(len(mine))
        chosen = {"train": train, "valid": [valid], "test": [test]}
        for split, places in chosen.items():
            splits[split] += [mine[i] for i in places]
    if len(by_answer) < 2:
        fail(f"{path} has only one answer")
    return splits, True


def load_texts(path, num_train, num_asked, batch_size=1):
    """{split: (questions, numbers of their answers, answers)} and the name of the data.

    A FAQ has one list of answers; in stories each split has its own, never seen in training.
    """
    if path is None:
        sizes = {"train": num_train, "valid": num_asked, "test": num_asked}
        loaded = {split: (*faq.load(split, n), faq.answers()) for split, n in sizes.items()}
        return check_batches(loaded, batch_size), f"FAQ v{faq.VERSION}"
    splits, shared = split_pairs(path, rows := read_pairs(path))
    if left := len(rows) - sum(map(len, splits.values())):
        print(f"{left} of {len(rows)} pairs repeat a question or an answer, and are left out")
    rng, loaded = np.random.default_rng(SPLIT_SEED), {}
    for split, rows in splits.items():
        chosen = rng.permutation(len(rows))[: num_train if split == "train" else num_asked]
        mine = [rows[i] for i in sorted(chosen)]
        answers = list(dict.fromkeys(row[2] for row in (splits["train"] if shared else mine)))
        places = {answer: i for i, answer in enumerate(answers)}
        numbers = np.array([places[row[2]] for row in mine])
        loaded[split] = [row[1] for row in mine], numbers, answers
    return check_batches(loaded, batch_size), Path(path).name


def check_batches(loaded, batch_size):
    """The loaded texts; ends in one line where no batch could be filled."""
    if (few := len(np.unique(loaded["train"][1]))) < batch_size:
        fail(f"--batch-size {batch_size}: a batch has no answer twice, take {few} at most")
    return loaded


# --- Characters as numbers ---
def make_vocabulary(texts, size=10_000):
    """{character: id}, the most frequent ones; the ids 0 and 1 are PADDING and UNKNOWN."""
    counts = {}
    for character in "".join(texts):
        counts[character] = counts.get(character, 0) + 1
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    return {character: i for i, character in enumerate(ordered[: size - 2], 2)}


def encode(texts, vocabulary, length):
    """int32 ids (len(texts), length), cut at `length` or filled up with 0."""
    ids = np.full((len(texts), length), PADDING, "int32")
    for row, text in zip(ids, texts, strict=True):
        known = [vocabulary.get(character, UNKNOWN) for character in text[:length]]
        row[: len(known)] = known
    return ids


def encode_all(texts):
    """The vocabulary of the training texts, and {split: (ids, answer numbers, answer ids)}."""
    vocabulary = make_vocabulary(texts["train"][0] + texts["train"][2])
    sides = [[t for some in texts.values() for t in some[place]] for place in (0, 2)]
    if cut := sum(len(text) > LENGTH for text in {*sides[0], *sides[1]}):
        print(f"of {cut} texts only the first {LENGTH} characters are read")
    asked, told = (min(LENGTH, max(map(len, side))) for side in sides)
    return vocabulary, {
        split: (encode(questions, vocabulary, asked), numbers, encode(answers, vocabulary, told))
        for split, (questions, numbers, answers) in texts.items()
    }


def encode_question(text, vocabulary, length):
    """int32 ids (1, length). Raises ValueError for a text without a known character."""
    text = text.strip()
    if not text:
        raise ValueError("the question is empty")
    if not any(character in vocabulary for character in text[:length]):
        raise ValueError(f"the question {text[:20]!r} has no known character")
    return encode([text], vocabulary, length)


# --- Training ---
def rounds(numbers, rng):
    """Rows in rounds, each in random order and with every answer at most once."""
    order = rng.permutation(len(numbers))
    seen, found = {}, []
    for row in order.tolist():
        turn = seen[numbers[row]] = seen.get(numbers[row], -1) + 1
        if turn == len(found):
            found.append([])
        found[turn].append(row)
    return found


def triplet_batches(questions, numbers, answers, batch_size, seed, first_epoch):
    """Endless batches ((questions, their answers),) in which no answer is twice."""
    for epoch in itertools.count(first_epoch):
        rng = np.random.default_rng((seed, epoch))
        for rows in rounds(numbers, rng):
            rows = rng.permutation(rows)
            for start in range(0, len(rows) - batch_size + 1, batch_size):
                chosen = rows[start : start + batch_size]
                yield ((questions[chosen], answers[numbers[chosen]]),)


def count_steps(numbers, batch_size):
    """Batches in an epoch of triplet_batches."""
    counts = np.bincount(numbers)
    return sum(int((counts > turn).sum()) // batch_size for turn in range(counts.max()))


def train_triplets(args, run, ids, compiled):
    """{name: the TripletModel at its best validation epoch} and {name: history}.

    ids: {split: (questions, answer numbers, answers)}; compiled: makes a TripletModel.
    """
    _, right, _ = ids["train"]
    asked, numbers, candidates = ids["valid"]
    # The loss of the validation questions is that of one question an answer, in mixed order.
    _, rows = np.unique(numbers, return_index=True)
    rows = np.random.default_rng(0).permutation(rows)
    trained, histories = {}, {}
    for extra_dense, negatives in itertools.product((64, None), ("random", "hard")):
        name = f"{'Dense' if extra_dense else 'no Dense'}, {negatives}"
        keras.utils.set_random_seed(args.seed)
        model = compiled(extra_dense, negatives)

        def measure(epoch, logs, model=model):
            ranks = answer_ranks(model, ids["valid"])
            logs["val_recall@1"] = float(np.mean(ranks == 1))
            logs["val_mean_reciprocal_rank"] = float(np.mean(1 / ranks))

        trained[name], histories[name] = fit_best(
            *(run, name, model, "val_mean_reciprocal_rank", args.text_epochs),
            functools.partial(triplet_batches, *ids["train"], args.batch_size, args.seed),
            count_steps(right, args.batch_size),
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=measure)],
            validation_data=((asked[rows], candidates[numbers[rows]]),),
            validation_batch_size=args.batch_size,
        )
    return trained, histories


# --- Measures of retrieval ---
def ranks_of(scores, right):
    """The rank of each row's right answer; equal scores, and NaN, count against it."""
    return (~(scores < scores[np.arange(len(right)), right][:, None])).sum(-1)


def answer_ranks(model, ids):
    """The rank that each question gives its answer; ids: questions, answer numbers, answers."""
    questions, right, answers = ids
    asked, told = apply(model.question_encoder, questions), apply(model.answer_encoder, answers)
    return ranks_of(asked @ told.T, right)


def word_scores(questions, texts):
    """TF-IDF cosines of questions with texts, on characters and pairs of them."""
    from scipy import sparse  # Here, because --help need not wait for it.

    def pieces(text):
        return [*text, *(text[i : i + 2] for i in range(len(text) - 1))]

    places, weights = {}, {}
    for text in texts:
        for piece in set(pieces(text)):
            places.setdefault(piece, len(places))
            weights[piece] = weights.get(piece, 0) + 1

    def matrix(rows):
        entries = [(i, p) for i, row in enumerate(rows) for p in pieces(row) if p in places]
        at = [i for i, _ in entries], [places[p] for _, p in entries]
        values = [np.log((1 + len(texts)) / weights[p]) for _, p in entries]
        found = sparse.csr_matrix((values, at), (len(rows), len(places)))
        lengths = np.sqrt(found.multiply(found).sum(1)) + 1e-9
        return sparse.csr_matrix(found.multiply(1 / lengths))

    return (matrix(questions) @ matrix(texts).T).toarray()


def baseline_ranks(texts):
    """{name: ranks} of TF-IDF on the test questions, before any training."""
    questions, right, answers = texts["test"]
    found = {"TF-IDF with the answers": ranks_of(word_scores(questions, answers), right)}
    asked, places, known = texts["train"]
    if known == answers:  # A FAQ: a new question may be like an old one of the same answer.
        scores = word_scores(questions, asked)
        best = np.zeros((len(questions), len(answers)))
        np.maximum.at(best.T, places, scores.T)
        found["TF-IDF with the training questions"] = ranks_of(best, right)
    return found


def measure_triplets(trained, histories, texts, ids, folder):
    """Reads the test questions: metrics, details and pictures, {file: caption}."""
    ranks, metrics = baseline_ranks(texts), {}
    ranks |= {name: answer_ranks(model, ids["test"]) for name, model in trained.items()}
    for name, values in ranks.items():
        for rank in (1, 10):
            metrics[f"recall@{rank}, {name}"] = proportion((values <= rank).sum(), len(values))
    active = {name: [entry["active"] for entry in histories[name]] for name in trained}
    details = {
        f"active triplets, {name}": f"{shares[0]:.1%} in epoch 1, {shares[-1]:.1%} in the last"
        for name, shares in active.items()
    }
    draw_recall(folder / "recall.png", ranks, active, len(texts["test"][2]))
    return metrics, details, {"recall.png": "Right answers among the first k; active triplets"}


def save_texts(folder, trained, histories, vocabulary, texts):
    """What predict.py needs: the encoders that were best on validation, and the answers."""
    key = "val_mean_reciprocal_rank"
    name = max(trained, key=lambda name: max(entry[key] for entry in histories[name]))
    trained[name].question_encoder.save(folder / "question_encoder.keras")
    trained[name].answer_encoder.save(folder / "answer_encoder.keras")
    questions, numbers, answers = texts["test"]
    every = list(dict.fromkeys(itertools.chain(*(some for *_, some in texts.values()))))
    rows = np.random.default_rng(0).permutation(len(questions))[:6].tolist()
    examples = [[questions[i], answers[numbers[i]]] for i in rows]
    saved = {"model": name, "vocabulary": vocabulary, "answers": every, "examples": examples}
    write_text(folder / "faq.json", json.dumps(saved, ensure_ascii=False))


def run_texts(args, run, texts, compiled):
    """Trains, then reads the test questions: metrics, details, captions and histories."""
    vocabulary, ids = encode_all(texts)
    compiled = functools.partial(compiled, len(vocabulary) + 2)  # And PADDING and UNKNOWN.
    trained, histories = train_triplets(args, run, ids, compiled)
    save_texts(run.dir, trained, histories, vocabulary, texts)
    return *measure_triplets(trained, histories, texts, ids, run.dir), histories


def draw_recall(path, ranks, active, num_answers):
    """Recall@k by k, and the share of active triplets by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    k = np.arange(1, min(50, num_answers) + 1)
    for name, values in ranks.items():
        style = ":" if name.startswith("TF-IDF") else "-"
        left.plot(k, [(values <= i).mean() for i in k], style, label=name)
    for name, shares in active.items():
        right.plot(range(1, len(shares) + 1), shares, label=name)
    left.set(xlabel="k", ylabel="recall@k", xscale="log")
    right.set(xlabel="epoch", ylabel="share of active triplets", ylim=(0, 1.02))
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
