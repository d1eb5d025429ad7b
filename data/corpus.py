"""Generated text with known word relations, the embedded corpus of word2vec_keras.

Each clause is about one form of a lemma ("kings", "belmora"): around it stand cues of its role
(plural, capital, ...), its companions, most of which all forms of the lemma share, words of its
topic, function words and noise. So forms of one lemma, of one role and of one topic are alike,
each in its own measure, and b - a is regular for the pairs (a, b) of a relation. Some companions
are the form's own, and frequencies follow Zipf's law, so no method answers every question.

The language is fixed; `seed` draws other sentences of it. Sentences come in blocks that depend
on (seed, block) and nothing else, so a long corpus starts with the shorter one. Random numbers
are uniform and only added, multiplied and compared: the text is the same on every machine.
VERSION is part of every record: change a line that moves a word, raise it.
"""

import os
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

VERSION = 1
CACHE = Path(__file__).parent / "downloads"
NUM_TOKENS, NUM_WORDS = 2_000_000, 20_000

FUNCTION_WORDS = (
    "the of and in a to for on with it at from is as that or not but which was we there they"
    " into when over our if out up no about after only some other such under where between"
    " during through because against until also upon though near per since toward whose"
    " across along behind beyond within around how why whether nor despite except like beside"
    " above below off onto down back away here what any none either neither somehow perhaps"
    " maybe thus hence therefore however instead otherwise moreover besides else yet"
)

# The cues of a role: what stands before and after a form that has it.
ROLES = {
    "singular": ("a this each every another one", "is was has seems itself"),
    "plural": ("these those many several few both", "are were have seem themselves"),
    "verb": ("to will can must should may", "today always often now usually"),
    "past": ("had once finally suddenly never last", "yesterday ago already previously then"),
    "gerund": ("keep while began without stopped enjoy", "again together meanwhile still"),
    "adjective": ("very quite so too rather fairly", "enough indeed really thing"),
    "comparative": ("much even far slightly somewhat becoming", "than still twice compared"),
    "superlative": ("the most among its possibly by", "ever all known imaginable"),
    "male": ("he his him mr sir", "himself beard moustache gentleman"),
    "female": ("she her hers mrs madam", "herself necklace bonnet maiden"),
    "country": ("government president border republic", "independence treaty flag territory"),
    "capital": ("downtown mayor avenue district", "suburb cathedral boulevard streetcar"),
    "currency": ("pay coin exchange banknote", "inflation cents wallet worth"),
    "language": ("speak grammar dialect translated", "alphabet vowel spoken accent"),
    "citizen": ("passport born exile ancestor", "immigrant native expatriate resident"),
}

# Of each topic: countable nouns, regular verbs and adjectives that are inflected by spelling.
TOPICS = {
    "kitchen": (
        "bread oven baker cake recipe soup onion spoon kettle pan sauce pie",
        "bake boil roast taste",
        "sweet salty crisp sour",
    ),
    "sea": (
        "ship harbor sailor wave anchor island captain boat lighthouse reef whale sail",
        "drift row paddle moor",
        "deep calm rough foamy",
    ),
    "farm": (
        "field barn tractor farmer horse plough crop fence goat orchard mill seed",
        "harvest plant graze shear",
        "ripe muddy green fresh",
    ),
    "music": (
        "song singer violin drum melody concert guitar piano band rhythm flute tune",
        "play record perform listen",
        "loud soft quiet slow",
    ),
    "war": (
        "soldier army battle sword general shield cannon enemy trench officer helmet fortress",
        "attack defend conquer surrender",
        "fierce brave bold harsh",
    ),
    "law": (
        "judge court lawyer prison crime witness trial verdict robber statute contract jury",
        "accuse arrest appeal punish",
        "strict guilty severe fair",
    ),
    "market": (
        "merchant price shop customer market loan debt profit tax broker invoice bargain",
        "purchase borrow export import",
        "cheap rich poor costly",
    ),
    "medicine": (
        "doctor nurse hospital patient fever wound pill symptom clinic virus surgeon bandage",
        "heal cure treat infect",
        "sick weak healthy pale",
    ),
    "school": (
        "teacher pupil lesson exam classroom pencil essay textbook student lecture grade desk",
        "learn explain study answer",
        "smart clever simple wise",
    ),
    "sport": (
        "player team goal coach ball match race referee stadium trophy champion skater",
        "kick score jump chase",
        "fast quick strong swift",
    ),
    "weather": (
        "storm cloud breeze shower frost rainbow puddle flood drought hurricane blizzard umbrella",
        "thaw pour melt drizzle",
        "cold warm windy cloudy",
    ),
    "forest": (
        "tree branch squirrel bear oak pine trail owl fern hunter den cabin",
        "hunt climb gather wander",
        "wild dense dark tall",
    ),
    "garden": (
        "rose tulip gardener flower lawn hedge petal bee butterfly spade lily pond",
        "prune bloom sprout wilt",
        "lush sunny pretty thorny",
    ),
    "house": (
        "roof wall window door brick ceiling stair chimney floor carpenter beam balcony",
        "construct paint repair renovate",
        "high low wide sturdy",
    ),
    "clothes": (
        "shirt coat hat button sleeve needle jacket glove sock collar pocket skirt",
        "stitch fold wash mend",
        "loose tight silky neat",
    ),
    "travel": (
        "train railway station ticket passenger bridge road wagon tunnel suitcase hotel driver",
        "travel arrive depart board",
        "long short late early",
    ),
    "workshop": (
        "engine wheel gear screw lathe mechanic pump valve drill wire piston motor",
        "weld assemble operate adjust",
        "heavy rusty noisy sharp",
    ),
    "library": (
        "book author page novel poem chapter library letter publisher poet story printer",
        "publish edit narrate quote",
        "old young new brief",
    ),
    "sky": (
        "star planet comet telescope galaxy moon rocket astronomer orbit meteor satellite crater",
        "observe launch glow explore",
        "bright faint vast round",
    ),
    "stage": (
        "scene curtain mask drama comedy script rehearsal theater audience dancer costume clown",
        "applaud rehearse dance act",
        "funny grand lively gloomy",
    ),
    "mine": (
        "miner cave shaft gem diamond pickaxe lantern furnace crystal vein mineral quarry",
        "extract refine polish crush",
        "hard shiny rare dusty",
    ),
    "palace": (
        "crown throne palace jewel banquet servant treasure ceremony herald minister dynasty feast",
        "reign inherit obey betray",
        "noble proud humble stately",
    ),
    "home": (
        "cousin infant birthday wedding toy pillow blanket doll parent orphan neighbor quarrel",
        "marry kiss adopt comfort",
        "kind happy gentle lonely",
    ),
    "world": (
        "continent ocean river valley mountain desert province empire nation climate embassy gulf",
        "settle unite invade migrate",
        "large small mild steep",
    ),
}

PEOPLE = {  # Male and female, by topic.
    "palace": "king queen prince princess duke duchess emperor empress baron baroness"
    " count countess lord lady heir heiress marquis marchioness viscount viscountess",
    "home": "father mother son daughter brother sister uncle aunt nephew niece husband wife"
    " boy girl man woman grandfather grandmother grandson granddaughter groom bride"
    " widower widow",
    "stage": "actor actress host hostess hero heroine wizard witch god goddess sorcerer sorceress",
    "farm": "bull cow rooster hen stallion mare ram ewe boar sow gander goose",
    "forest": "lion lioness tiger tigress stag doe fox vixen",
    "market": "landlord landlady salesman saleswoman",
}

# Country, capital, currency. The language of belmora is belmorish, its citizen a belmoran.
COUNTRIES = """
    belmora questport dorin, tarvena ostgrad felk, sundara melhaven rupal,
    corvina estburg tolen, drelka vornstad zill, falmira portelle liros,
    gondora hamwick pendel, havrana lundholm skar, ismeria calvado reyal,
    jorvika thornby krell, kestria norbridge halfin, lorvana ambertown sulo,
    marvinia silvagrad tesk, nolanda fernmouth gildar, ostravia kirkstad drom,
    pelagia solport nuro, quarnia brackwell orlin, rovenna castelmar scuda,
    selvania greywater plen, tolmara eastmere bezan, ulvania frostheim kroll,
    valdora miravel pesan, wendara stonebury crend, xandria palmos zekel,
    yllara whitefall ondar, zamelia rosamund tilar, arvenia longford mellin,
    brevonia ashgate stenn, caldoria redcliff quil, dovania marshgate lunt,
    elveria highmoor aurel, frennia oldhaven brak, galvona ravenport senta,
    hesperna stargard vint, ilvara coppergate morel, jastara deephollow yent,
    kolvania westermark dupla, lumeria sandholm farrin, mordavia blackfen gorl,
    norvelia oakhaven dram
"""

# What stands in each place of a clause. B and A: cues before and after; W: the form; C: a
# companion; T: a word of the topic; F: a function word; G: any word of the tail.
CLAUSES = (
    "FBWACFT",
    "BWTCTFG",
    "FTFBWAFC",
    "TFBWGFCT",
    "FBWFCGTF",
    "GFBWATFCT",
)
MAX_CLAUSES = 3  # Of a sentence.
COMPANIONS = 8  # Of a form.
OWN = 0.2  # Part of these that the form does not share with its lemma.
POOL = 100  # Words of the tail of each topic that may be companions.
FORM_OFFSET, TAIL_OFFSET = 30, 300  # Of Zipf's law: weight 1 / (rank + offset).
BLOCK = 4096  # Sentences.


class Language(NamedTuple):
    """Words and the weights they are drawn by. A word is its place in `words`.

    What belongs to topic t lies from first_...[t] to first_...[t + 1]; weights are cumulative.
    """

    words: list  # words[0] ends a sentence.
    functions: np.ndarray
    function_weights: np.ndarray
    cues: np.ndarray  # (roles, before or after, n): words, repeated so that all have n.
    forms: np.ndarray  # (forms, 2): word, role.
    companions: np.ndarray  # (forms, COMPANIONS): words.
    first_form: np.ndarray
    form_weights: np.ndarray
    tail: np.ndarray  # The invented words.
    first_tail: np.ndarray
    tail_weights: np.ndarray


def inflect(word, ending):
    """bake + ing = baking, story + s = stories, match + s = matches, heavy + er = heavier."""
    if word.endswith("y") and word[-2] not in "aeiou" and ending != "ing":
        word = word[:-1] + ("ie" if ending == "s" else "i")
    elif ending == "s" and word.endswith(("s", "x", "ch", "sh")):
        word += "e"
    elif ending != "s" and word.endswith("e"):
        word = word[:-1]
    return word + ending


@cache
def lemmas():
    """Every lemma: [(topic, {role: word})]."""
    found = []
    for topic, (nouns, verbs, adjectives) in TOPICS.items():
        for word in nouns.split():
            found.append((topic, {"singular": word, "plural": inflect(word, "s")}))
        for word in verbs.split():
            past, gerund = inflect(word, "ed"), inflect(word, "ing")
            found.append((topic, {"verb": word, "past": past, "gerund": gerund}))
        for word in adjectives.split():
            more, most = inflect(word, "er"), inflect(word, "est")
            found.append((topic, {"adjective": word, "comparative": more, "superlative": most}))
        people = PEOPLE.get(topic, "").split()
        for male, female in zip(people[::2], people[1::2], strict=True):
            found.append((topic, {"male": male, "female": female}))
    for country, capital, currency in map(str.split, COUNTRIES.split(",")):
        stem = country.removesuffix("a")
        language, citizen = stem.removesuffix("i") + "ish", stem + "an"
        words = (country, capital, currency, language, citizen)
        roles = ("country", "capital", "currency", "language", "citizen")
        found.append(("world", dict(zip(roles, words, strict=True))))
    return found


def invented_words():
    """A million words of two syllables, in an order that looks like none."""
    onsets = [*"bdfghklmnprstvz", "br", "dr", "gr", "st", "tr"]
    syllables = ["".join(parts) for parts in product(onsets, "aeiou", "dklmnprstx")]
    for number in range(1_000_000):
        first, second = divmod(number * 617_353 % 1_000_000, 1000)
        yield syllables[first] + syllables[second]


def cumulative(weights):
    return np.concatenate([[0], np.cumsum(weights)])


@cache
def language(num_words=NUM_WORDS):
    rng = np.random.default_rng(VERSION)
    topics, roles, functions = list(TOPICS), list(ROLES), FUNCTION_WORDS.split()
    cue_words = [[side.split() for side in ROLES[role]] for role in roles]
    words = dict.fromkeys(["\n", *functions])
    words |= dict.fromkeys(cue for sides in cue_words for side in sides for cue in side)
    words |= dict.fromkeys(word for _, forms in lemmas() for word in forms.values())
    core = len(words)
    fewest = core - 1 + POOL * len(topics)
    if not fewest <= num_words <= 1_000_000:
        raise ValueError(f"num_words is {num_words}: must be from {fewest} to 1000000")
    for word in invented_words():
        if len(words) > num_words:
            break
        words[word] = None
    ids = {word: i for i, word in enumerate(words)}

    by_topic = sorted(
        (topics.index(topic), lemma, roles.index(role), ids[word])
        for lemma, (topic, forms) in enumerate(lemmas())
        for role, word in forms.items()
    )
    topic_of_form, lemma, role, word = np.array(by_topic).T
    rank = rng.random(len(word)).argsort(kind="stable")
    tail = np.arange(core, len(words))
    topic_of_tail = np.arange(len(tail)) % len(topics)
    order = topic_of_tail.argsort(kind="stable")
    first_tail = np.searchsorted(topic_of_tail[order], np.arange(len(topics) + 1))
    tail = tail[order]

    shared, own = rng.random((2, len(by_topic), COMPANIONS))
    companion = np.where(rng.random(own.shape) < OWN, own, shared[lemma])
    companion = first_tail[topic_of_form][:, None] + (companion * POOL).astype(int)
    most = max(len(side) for sides in cue_words for side in sides)
    return Language(
        words=list(words),
        functions=np.arange(1, len(functions) + 1),
        function_weights=cumulative(1 / np.arange(1, len(functions) + 1)),
        cues=np.array([[[ids[c] for c in (side * most)[:most]] for side in s] for s in cue_words]),
        forms=np.stack([word, role], 1),
        companions=tail[companion],
        first_form=np.searchsorted(topic_of_form, np.arange(len(topics) + 1)),
        form_weights=cumulative(1 / (rank + FORM_OFFSET)),
        tail=tail,
        first_tail=first_tail,
        tail_weights=cumulative(1 / (order + TAIL_OFFSET)),
    )


def draw(rng, weights, low, high):
    """One place from low to high - 1 for each of these pairs, by cumulative weights."""
    start, end = weights[low], weights[high]
    value = start + rng.random(len(low)) * (end - start)
    return np.clip(np.searchsorted(weights, value, side="right") - 1, low, high - 1)


def draw_block(seed, block, num_words=NUM_WORDS):
    """The words of BLOCK sentences, a 0 after each sentence, as one array."""
    known = language(num_words)
    rng = np.random.default_rng((VERSION, seed, block))

    def any_of(weights, count):
        low = np.zeros(count, int)
        return draw(rng, weights, low, low + len(weights) - 1)

    def of_topic(weights, first, topic):
        return draw(rng, weights, first[topic], first[topic + 1])

    def favour_first(places, row):
        u = rng.random(len(row))
        return (u * u * places).astype(int)

    num_clauses = 1 + (rng.random(BLOCK) * MAX_CLAUSES).astype(int)
    form = any_of(known.form_weights, BLOCK)
    topic = np.searchsorted(known.first_form, form, side="right") - 1
    topic = np.repeat(topic, num_clauses)
    form = of_topic(known.form_weights, known.first_form, topic)
    word, role = known.forms[form].T

    width = max(map(len, CLAUSES)) + 1
    clauses = np.array([list(clause.ljust(width)) for clause in CLAUSES])
    kind = clauses[(rng.random(len(form)) * len(CLAUSES)).astype(int)]
    kind[:, -1] = "F"  # Joins two clauses.
    kind[np.cumsum(num_clauses) - 1, -1] = "."
    ids = np.zeros(kind.shape, int)
    places = {letter: np.nonzero(kind == letter) for letter in "WBACTFG"}
    row = {letter: place[0] for letter, place in places.items()}
    num_cues = known.cues.shape[2]
    before, after = favour_first(num_cues, row["B"]), favour_first(num_cues, row["A"])
    companion = favour_first(COMPANIONS, row["C"])
    of_tail = of_topic(known.tail_weights, known.first_tail, topic[row["T"]])
    ids[places["W"]] = word
    ids[places["B"]] = known.cues[role[row["B"]], 0, before]
    ids[places["A"]] = known.cues[role[row["A"]], 1, after]
    ids[places["C"]] = known.companions[form[row["C"]], companion]
    ids[places["T"]] = known.tail[of_tail]
    ids[places["F"]] = known.functions[any_of(known.function_weights, len(row["F"]))]
    ids[places["G"]] = known.tail[any_of(known.tail_weights, len(row["G"]))]
    return ids[kind != " "]


def blocks(num_tokens=NUM_TOKENS, seed=0, num_words=NUM_WORDS):
    """The text as arrays of words, a 0 after each sentence; the last sentence is whole."""
    block, left = 0, num_tokens
    while left > 0:
        ids = draw_block(seed, block, num_words)
        ends = np.flatnonzero(ids == 0)
        tokens = ends - np.arange(len(ends))  # Up to and with each sentence.
        last = min(np.searchsorted(tokens, left), len(ends) - 1)
        yield ids[: ends[last] + 1]
        left -= tokens[last]
        block += 1


def write(path, num_tokens=NUM_TOKENS, seed=0, num_words=NUM_WORDS):
    """Writes the text, a sentence a line, and returns the number of its tokens."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}")
    words = np.array(language(num_words).words, object)
    written = 0
    bar = tqdm(total=num_tokens, desc="writing the corpus", unit="token", disable=None)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file, bar:
            for ids in blocks(num_tokens, seed, num_words):
                file.write(" ".join(words[ids]).replace(" \n ", "\n").replace(" \n", "\n"))
                written += np.count_nonzero(ids)
                bar.update(np.count_nonzero(ids))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return written


def load(num_tokens=NUM_TOKENS, seed=0, num_words=NUM_WORDS, folder=CACHE):
    """The path of the text, which is written once."""
    path = folder / f"corpus-v{VERSION}-{num_tokens}-{seed}-{num_words}.txt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(path, num_tokens, seed, num_words)
    return path


SECTIONS = {
    "capital": ("country", "capital"),
    "currency": ("country", "currency"),
    "language": ("country", "language"),
    "citizen": ("country", "citizen"),
    "female": ("male", "female"),
    "plural": ("singular", "plural"),
    "past": ("verb", "past"),
    "gerund": ("verb", "gerund"),
    "comparative": ("adjective", "comparative"),
    "superlative": ("adjective", "superlative"),
}
PAIRS = 20  # Of each section in each half.


@cache
def halves():
    """The lemmas of each half of the evaluation sets, shuffled; of each kind about as many."""
    rng = np.random.default_rng((VERSION, 1))
    shuffled = rng.random(len(lemmas())).argsort(kind="stable")
    kinds = [tuple(lemmas()[lemma][1]) for lemma in shuffled]
    split = {"dev": [], "test": []}
    for kind in sorted(set(kinds)):
        members = [i for i, k in zip(shuffled, kinds, strict=True) if k == kind]
        split["dev"] += members[::2]
        split["test"] += members[1::2]
    return split


def analogies(split):
    """[(section, a, b, c, d)]: a is to b as c is to d. The halves "dev" and "test" share no word.

    Within a section each pair (a, b) meets each other one.
    """
    questions = []
    for section, (first, second) in SECTIONS.items():
        forms = [lemmas()[lemma][1] for lemma in halves()[split]]
        pairs = [(words[first], words[second]) for words in forms if first in words][:PAIRS]
        questions += [(section, *x, *y) for x, y in permutations(pairs, 2)]
    return questions


def word_pairs(split, count=100):
    """[(word, word, similarity)], as many of each grade, of words of this half.

    Similarity 3: forms of one lemma; 2: one topic and one role; 1: one topic, two roles;
    0: two topics and two roles.
    """
    known = [
        (word, lemma, lemmas()[lemma][0], role)
        for lemma in halves()[split]
        for role, word in lemmas()[lemma][1].items()
    ]
    rng = np.random.default_rng((VERSION, 2, sorted(halves()).index(split)))
    grades = {grade: {} for grade in (3, 2, 1, 0)}
    while any(len(pairs) < count for pairs in grades.values()):
        x, y = (known[int(u * len(known))] for u in rng.random(2))
        lemma, topic, role = (x[i] == y[i] for i in (1, 2, 3))
        grade = 3 if lemma else 2 if topic and role else 1 if topic else 0
        if x[0] != y[0] and (grade or not role) and len(grades[grade]) < count:
            grades[grade][*sorted((x[0], y[0]))] = None
    return [(*pair, grade) for grade, pairs in grades.items() for pair in pairs]


def topics():
    """The topic of each word that is a form of a lemma: {word: topic}."""
    return {word: topic for topic, forms in lemmas() for word in forms.values()}
