"""From trained networks to metrics and images: of digits, and of questions with answers."""

import itertools
import json
from collections import Counter

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from scipy import sparse

from common.cli import note
from common.files import read_arrays, read_json, write_text
from common.metrics import bootstrap, calibration_error, mean_interval, proportion
from common.run import load_model
from custom_loss.dataset import (
    MAX_LENGTH,
    NUM_SEEN,
    NUM_SHOTS,
    encode,
    encode_question,
)

NUM_DRAWS = 100  # How often the known images of unseen digits are drawn.
NUM_NOISE = 1000  # Images of noise.
NUM_GALLERY = 500  # Validation digits that predict.py compares with.
NUM_NEIGHBOURS = 5
NUM_ANSWERS = 3
NUM_EXAMPLES = 6


def outputs_of(model, inputs, batch_size=1000):
    """What a model makes of the inputs: an array, or a list of arrays.

    The model is called eagerly, because to compile each of two dozen small models takes longer.
    But on JAX an LSTM is compiled anew at each eager call.
    """
    call = model
    if keras.backend.backend() == "jax":
        call = model.predict_on_batch
    parts = []
    for start in range(0, len(inputs), batch_size):
        parts.append(call(inputs[start : start + batch_size]))
    if isinstance(parts[0], list):
        columns = zip(*parts, strict=True)
        return [np.concatenate([ops.convert_to_numpy(x) for x in column]) for column in columns]
    return np.concatenate([ops.convert_to_numpy(part) for part in parts])


# --- Metrics of digits ---
def features_and_probabilities(model):
    """A model of images with two outputs, made of a classifier with or without center loss."""
    features = model.get_layer("features").output
    return keras.Model(model.inputs[0], [features, model.get_layer("probabilities")(features)])


def measure_digits(args, networks, test, folder):
    """Reads the test images: metrics, and {file: caption} of the images that are drawn.

    Args:
        networks: {name: a model from features_and_probabilities}.
        test: uint8 images (n, 28, 28, 1) and labels.
    """
    images, labels = test
    outputs = {name: outputs_of(network, images) for name, network in networks.items()}
    shown_names = {
        "plain": "plain",
        "smoothing": f"smoothing {args.epsilon:g}",
        "center": f"center {args.center_weight:g}",
    }
    shown_names = {name: shown for name, shown in shown_names.items() if name in networks}
    metrics = {}
    captions = {}
    confidences = {}
    noises = noise_images(images)
    for name, shown in shown_names.items():
        _, probabilities = outputs[name]
        seen = labels < NUM_SEEN
        hits = (probabilities[seen].argmax(-1) == labels[seen]).sum()
        metrics[f"accuracy, {shown}"] = proportion(hits, seen.sum())
        if "smoothing" in args.loss and name != "center":
            metrics[f"calibration error, {shown}"] = bootstrap(
                calibration_error, probabilities[seen], labels[seen]
            )
            confidences[shown] = confidences_of(networks[name], probabilities, labels, noises)
            metrics.update(measure_confidences(shown, confidences[shown]))
    if "center" in args.loss:
        spaces = {"pixels": images.reshape(len(labels), -1) / 255}
        for name, shown in shown_names.items():
            spaces[shown], _ = outputs[name]
        metrics.update(measure_spaces(spaces, labels))
        draw_planes(folder / "features.png", outputs, labels)
        captions["features.png"] = "Two features of the test digits, without and with center loss"
    if confidences:
        draw_confidences(folder / "confidence.png", confidences)
        captions["confidence.png"] = "How sure the network is: of digits, and of what is none"
    return metrics, captions


def noise_images(images):
    """Two kinds of images without a digit: uniform noise, and pixels of digits shuffled."""
    rng = np.random.default_rng(0)
    some = images[:NUM_NOISE]
    shuffled = rng.permuted(some.reshape(len(some), -1), axis=1)
    uniform = rng.integers(0, 256, (NUM_NOISE, *images.shape[1:]), "uint8")
    return {"noise": uniform, "shuffled digits": shuffled.reshape(some.shape)}


def confidences_of(network, probabilities, labels, noises):
    """{kind of image: the confidence of each}."""
    seen = labels < NUM_SEEN
    confidences = {
        "digits 0-6": probabilities[seen].max(-1),
        "digits 7-9": probabilities[~seen].max(-1),
    }
    for kind, images in noises.items():
        _, of_noise = outputs_of(network, images)
        confidences[kind] = of_noise.max(-1)
    return confidences


def measure_confidences(shown, confidences):
    """The mean confidence on each kind of image, and how often it is above 90%."""
    metrics = {}
    for kind, values in confidences.items():
        mean = mean_interval(values.astype(float))
        mean["n"] = len(values)
        metrics[f"mean confidence on {kind}, {shown}"] = mean
        sure = proportion((values > 0.9).sum(), len(values))
        metrics[f"more than 90% sure of {kind}, {shown}"] = sure
    return metrics


def measure_spaces(spaces, labels):
    """How compact the classes are in each space of features, and how well unseen digits do."""
    seen = labels < NUM_SEEN
    metrics = {}
    for shown, features in spaces.items():
        if shown != "pixels":
            metrics[f"within / between, {shown}"] = bootstrap(
                distance_ratio, features[seen], labels[seen]
            )
        accuracies = few_shot_accuracies(features[~seen].astype(float), labels[~seen])
        mean = mean_interval(accuracies)
        mean["n"] = len(accuracies)
        metrics[f"unseen digits, {shown}"] = mean
    return metrics


def distance_ratio(features, labels):
    """Mean squared distance to the own class's centre, over that of the centres to theirs.

    It does not change when all features are scaled, as a smaller distance alone would.
    """
    classes, class_of_sample = np.unique(labels, return_inverse=True)
    centres = np.stack([features[labels == c].mean(0) for c in classes])
    within = np.square(features - centres[class_of_sample]).sum(-1).mean()
    return within / np.square(centres - centres.mean(0)).sum(-1).mean()


def few_shot_accuracies(features, labels):
    """How often each sample is put in its class by the nearest of NUM_SHOTS samples per class.

    The known samples are drawn NUM_DRAWS times; a sample is not asked for while it is one.
    """
    rng = np.random.default_rng(0)
    classes = np.unique(labels)
    correct = np.zeros(len(labels))
    asked = np.zeros(len(labels))
    squares = np.square(features).sum(-1)
    for _ in range(NUM_DRAWS):
        drawn = [rng.choice(np.flatnonzero(labels == c), NUM_SHOTS, replace=False) for c in classes]
        known = np.concatenate(drawn)
        distances = squares[known] - 2 * features @ features[known].T
        others = np.setdiff1d(np.arange(len(labels)), known)
        nearest = labels[known][distances[others].argmin(-1)]
        correct[others] += nearest == labels[others]
        asked[others] += 1
    return correct[asked > 0] / asked[asked > 0]


# --- Images of digits ---
def draw_confidences(path, confidences):
    """{network: {kind of image: confidences}}, one panel for each kind."""
    kinds = list(next(iter(confidences.values())))
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    for axis, kind in zip(figure.subplots(1, len(kinds)), kinds, strict=True):
        for name, values in confidences.items():
            bins = np.linspace(0, 1, 26)
            axis.hist(values[kind], bins, density=True, alpha=0.55, label=name)
        axis.set(xlabel="confidence", title=kind, yticks=[])
    axis.legend()
    figure.savefig(path, dpi=110)


def draw_planes(path, outputs, labels):
    """Two features of the digits 0 to 6, without and with center loss, a colour per class."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, ("plain 2-D", "center 2-D"), strict=True):
        features, _ = outputs[name]
        for digit in range(NUM_SEEN):
            x, y = features[labels == digit].T
            axis.scatter(x, y, s=3, color=f"C{digit}", label=str(digit), alpha=0.5)
        axis.set_title(name)
    axes[-1].legend(markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def draw_neighbours(path, images, gallery, neighbours):
    """Each image with what it is taken for, beside it its neighbours and their distances."""
    rows = len(images)
    columns = 1 + NUM_NEIGHBOURS
    figure = Figure(figsize=(1.5 * columns, 1.8 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False)
    for axes, image, (label, votes, nearest) in zip(all_axes, images, neighbours, strict=True):
        shown = [(image, f"{label} by {votes} of {len(nearest)}")]
        for place, near_label, distance in nearest:
            shown.append((gallery[place], f"{near_label} at {distance:.2f}"))
        for axis, (shown_image, title) in zip(axes, shown, strict=True):
            axis.imshow(shown_image, "gray", vmin=0, vmax=255)
            axis.axis("off")
            axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110)


# --- Digits for predict.py ---
def save_digits(folder, networks, valid):
    """Writes the network with the best features, and digits to compare with."""
    images, labels = valid
    name = next(name for name in ("center", "smoothing", "plain") if name in networks)
    networks[name].save(folder / "digits.keras")
    np.savez_compressed(
        folder / "gallery.npz", pictures=images[:NUM_GALLERY], labels=labels[:NUM_GALLERY]
    )


def find_neighbours(run_dir, images):
    """The known digits nearest to each image.

    Args:
        images: uint8 (n, 28, 28).

    Returns:
        [(label, its votes, [(place in the gallery, label, distance), ...]), ...] and the gallery.
        The label is that of most neighbours, among equals that of the nearest. It can be a 7, 8
        or 9, which the network never saw.
    """
    network = load_model(run_dir / "digits.keras")
    gallery = read_arrays(run_dir / "gallery.npz")
    known, _ = outputs_of(network, gallery["pictures"])
    features, _ = outputs_of(network, images[..., None])
    neighbours = []
    for feature in features:
        distances = np.sqrt(np.square(known - feature).sum(-1))
        nearest = []
        for place in np.argsort(distances, kind="stable")[:NUM_NEIGHBOURS].tolist():
            nearest.append((place, int(gallery["labels"][place]), float(distances[place])))
        [(label, votes)] = Counter(label for _, label, _ in nearest).most_common(1)
        neighbours.append((label, votes, nearest))
    return neighbours, gallery["pictures"][..., 0]


# --- Metrics of questions ---
def ranks_of(scores, right):
    """The rank of each row's right answer; equal scores, and NaN, count against it.

    Args:
        scores: (questions, answers).
        right: the number of each question's answer.
    """
    right_scores = scores[np.arange(len(right)), right][:, None]
    return (~(scores < right_scores)).sum(-1)


def answer_ranks(model, ids):
    """The rank that each question gives its answer; ids: questions, answer numbers, answers."""
    questions, right, answers = ids
    question_vectors = outputs_of(model.question_encoder, questions)
    answer_vectors = outputs_of(model.answer_encoder, answers)
    return ranks_of(question_vectors @ answer_vectors.T, right)


class ValidationRanks(keras.callbacks.Callback):
    """Adds the recall and the mean reciprocal rank of the validation questions to the logs."""

    def __init__(self, ids):
        super().__init__()
        self.ids = ids

    def on_epoch_end(self, epoch, logs=None):
        ranks = answer_ranks(self.model, self.ids)
        logs["val_recall@1"] = float(np.mean(ranks == 1))
        logs["val_mean_reciprocal_rank"] = float(np.mean(1 / ranks))


class TfIdf:
    """TF-IDF on characters and pairs of them, with log((1 + n) / df) as a piece's weight.

    scikit-learn's vectorizer has other formulas for the weight.

    Args:
        texts: the known texts.
    """

    def __init__(self, texts):
        self.texts = texts
        self.places = {}
        self.counts = Counter()
        for text in texts:
            # In order of appearance: the order of a set differs from run to run, and so would ties.
            for piece in dict.fromkeys(pieces_of(text)):
                self.places.setdefault(piece, len(self.places))
                self.counts[piece] += 1

    def vectors(self, texts):
        """A sparse matrix (texts, pieces) with rows of length 1."""
        values = []
        rows = []
        columns = []
        for row, text in enumerate(texts):
            for piece in pieces_of(text):
                if piece in self.places:
                    values.append(np.log((1 + len(self.texts)) / self.counts[piece]))
                    rows.append(row)
                    columns.append(self.places[piece])
        shape = (len(texts), len(self.places))
        matrix = sparse.csr_matrix((values, (rows, columns)), shape)
        lengths = np.sqrt(matrix.multiply(matrix).sum(1)) + 1e-9
        return sparse.csr_matrix(matrix.multiply(1 / lengths))

    def cosines(self, questions):
        """(questions, texts)"""
        return (self.vectors(questions) @ self.vectors(self.texts).T).toarray()


def pieces_of(text):
    """The characters of a text, and the pairs of them."""
    return [*text, *(text[i : i + 2] for i in range(len(text) - 1))]


def baseline_ranks(texts):
    """{name: ranks} of TF-IDF on the test questions, without any training."""
    questions, right, answers = texts["test"]
    ranks = {"TF-IDF with the answers": ranks_of(TfIdf(answers).cosines(questions), right)}
    known_questions, answer_of, known_answers = texts["train"]
    if known_answers == answers:  # A FAQ: a question may be like an old one of the same answer.
        cosines = TfIdf(known_questions).cosines(questions)
        best = np.zeros((len(questions), len(answers)))
        np.maximum.at(best.T, answer_of, cosines.T)
        ranks["TF-IDF with the training questions"] = ranks_of(best, right)
    return ranks


def measure_texts(networks, histories, texts, ids, folder):
    """Reads the test questions: metrics, details, and {file: caption} of the image.

    Args:
        networks: {name: TripletModel}.
        histories: {name: the history of its training}.
    """
    ranks = baseline_ranks(texts)
    for name, network in networks.items():
        ranks[name] = answer_ranks(network, ids["test"])
    metrics = {}
    for name, values in ranks.items():
        for k in (1, 10):
            metrics[f"recall@{k}, {name}"] = proportion((values <= k).sum(), len(values))
    details = {}
    active = {}
    for name in networks:
        active[name] = [entry["active"] for entry in histories[name]]
        first, last = active[name][0], active[name][-1]
        details[f"active triplets, {name}"] = f"{first:.1%} in epoch 1, {last:.1%} in the last"
    num_answers = len(texts["test"][2])
    draw_recall(folder / "recall.png", ranks, active, num_answers)
    return metrics, details, {"recall.png": "Right answers among the first k; active triplets"}


def draw_recall(path, ranks, active, num_answers):
    """Recall@k by k, and the fraction of active triplets by epoch."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    k = np.arange(1, min(50, num_answers) + 1)
    for name, values in ranks.items():
        style = ":" if name.startswith("TF-IDF") else "-"
        left.plot(k, [(values <= i).mean() for i in k], style, label=name)
    for name, fractions in active.items():
        right.plot(range(1, len(fractions) + 1), fractions, label=name)
    left.set(xlabel="k", ylabel="recall@k", xscale="log")
    right.set(xlabel="epoch", ylabel="fraction of active triplets", ylim=(0, 1.02))
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)


# --- Questions for predict.py ---
def save_texts(folder, networks, histories, vocabulary, texts):
    """Writes the encoders that were best on validation, the answers, and some examples."""
    name = max(networks, key=lambda name: best_rank(histories[name]))
    networks[name].question_encoder.save(folder / "question_encoder.keras")
    networks[name].answer_encoder.save(folder / "answer_encoder.keras")
    questions, numbers, answers = texts["test"]
    rows = np.random.default_rng(0).permutation(len(questions))[:NUM_EXAMPLES].tolist()
    # Each split of stories has answers of its own; a question may be about any of them.
    all_answers = itertools.chain.from_iterable(answers for _, _, answers in texts.values())
    saved = {
        "model": name,
        "vocabulary": vocabulary,
        "answers": list(dict.fromkeys(all_answers)),
        "examples": [[questions[row], answers[numbers[row]]] for row in rows],
    }
    write_text(folder / "faq.json", json.dumps(saved, ensure_ascii=False))


def best_rank(history):
    return max(entry["val_mean_reciprocal_rank"] for entry in history)


class Faq:
    """The encoders of a run and its answers."""

    def __init__(self, run_dir):
        saved = read_json(run_dir / "faq.json")
        self.vocabulary = saved["vocabulary"]
        self.answers = saved["answers"]
        self.examples = saved["examples"]
        self.question_encoder = load_model(run_dir / "question_encoder.keras")
        answer_encoder = load_model(run_dir / "answer_encoder.keras")
        ids = encode(self.answers, self.vocabulary, MAX_LENGTH)
        self.vectors = outputs_of(answer_encoder, ids)

    def ask(self, question):
        """The best answers with their cosines. Raises ValueError for an unreadable question."""
        ids = encode_question(question, self.vocabulary, MAX_LENGTH)
        if len(question.strip()) > MAX_LENGTH:
            note(f"{question[:10]}...: {MAX_LENGTH} characters are read")
        cosines = self.vectors @ outputs_of(self.question_encoder, ids)[0]
        best = np.argsort(-cosines, kind="stable")[:NUM_ANSWERS]
        return [(self.answers[i], float(cosines[i])) for i in best]
