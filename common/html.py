"""Pages that need no other file, by Jinja2: texts are escaped."""

from jinja2 import Environment

from common.files import replacing

SHADED_WORDS = """\
<!doctype html>
<html lang="zh">
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 18px/1.9 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em }
h2 { font-size: 1em }
span { padding: .1em .15em; border-radius: .2em }
</style>
<h1>{{ title }}</h1>
<p>{{ explanation }}</p>
{% for text in texts %}
<h2>{{ text.heading }}</h2>
<p>
{% for word in text.words %}
<span title="{{ word.tooltip }}" style="{{ word.style }}">{{ word.word }}</span>
{% endfor %}
</p>
{% endfor %}
</html>
"""


def compile_template(template):
    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(template)


def render(template, **values):
    """A page out of a Jinja2 template given as text; values are escaped."""
    return compile_template(template).render(**values)


def write_page(path, template, **values):
    """Writes a page to a file part by part, so that a long one need not fit into memory.

    Values may be generators: the template then asks for one item after the other. What UTF-8
    cannot hold, such as half of a surrogate pair, becomes a question mark.
    """
    parts = compile_template(template).generate(**values)
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="replace") as file,
    ):
        file.writelines(parts)


def shaded_words_page(title, explanation, texts):
    """A page of texts whose words stand on a coloured background.

    Args:
        texts: a list of {"heading": text, "words": [{"word", "tooltip", "style"}, ...]}; the
            style is CSS, such as "background: #ffd0d0".
    """
    return render(SHADED_WORDS, title=title, explanation=explanation, texts=texts)
