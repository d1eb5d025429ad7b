"""Picture files that are damaged: what their errors are."""

import struct

from PIL import Image

# What Pillow raises for a file that is no intact picture, or that would fill the memory.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
UNREADABLE += (struct.error, TypeError)  # Of damaged TIFF files.
