"""Captchas drawn per second and core: data/captchas.py against the `captcha` package.

    python benchmarks/captcha_drawing.py

Both draw four characters on one core. They take turns, and the ratio is the median of the rounds.
Last line: `speed ratio: X` (ours over the package's).
"""

import argparse
import statistics
import time

from captcha.image import ImageCaptcha

from common.cli import positive_int
from data.captchas import HEIGHT, WIDTH, draw_captcha


def images_per_second(draw, count):
    """Calls draw(index) so many times; counts the time of this process, not of the clock."""
    start = time.process_time()
    for index in range(count):
        draw(index)
    return count / (time.process_time() - start)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--count", type=positive_int, default=300, help="captchas per round")
    args = parser.parse_args(argv)
    package = ImageCaptcha(width=WIDTH, height=HEIGHT)

    def draw_theirs(index):
        package.generate(f"{index % 10_000:04d}", format="jpeg")

    def draw_ours(index):
        draw_captcha(1, index)

    # The first calls load fonts.
    images_per_second(draw_theirs, 20)
    images_per_second(draw_ours, 20)
    ratios = []
    for number in range(args.rounds):
        theirs = images_per_second(draw_theirs, args.count)
        ours = images_per_second(draw_ours, args.count)
        ratios.append(ours / theirs)
        speeds = f"captcha package {theirs:.0f}/s, data/captchas.py {ours:.0f}/s"
        print(f"round {number + 1}: {speeds}")
    print(f"lowest {min(ratios):.2f}, highest {max(ratios):.2f}")
    print(f"speed ratio: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
