"""Captchas drawn per second and core: data/captchas.py against the `captcha` package.

    python benchmarks/captcha_drawing.py

Both draw four characters on one core; rounds are interleaved, the ratio is the median of the
rounds. Last line: `speed ratio: X` (ours over the package's).
"""

import argparse
import statistics
import time

from captcha.image import ImageCaptcha

from data.captchas import HEIGHT, WIDTH, draw_captcha


def per_second(draw, count):
    start = time.process_time()
    for index in range(count):
        draw(index)
    return count / (time.process_time() - start)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=300, help="captchas a round")
    args = parser.parse_args(argv)
    package = ImageCaptcha(width=WIDTH, height=HEIGHT)
    systems = {
        "captcha package": lambda index: package.generate(f"{index % 10_000:04d}", format="jpeg"),
        "data/captchas.py": lambda index: draw_captcha(1, index),
    }
    for draw in systems.values():
        per_second(draw, 20)
    ratios = []
    for number in range(args.rounds):
        speeds = {name: per_second(draw, args.count) for name, draw in systems.items()}
        theirs, ours = speeds.values()
        ratios.append(ours / theirs)
        print(f"round {number + 1}: " + ", ".join(f"{n} {s:.0f}/s" for n, s in speeds.items()))
    print(f"lowest {min(ratios):.2f}, highest {max(ratios):.2f}")
    print(f"speed ratio: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
