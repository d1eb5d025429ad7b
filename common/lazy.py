"""Keras, loaded on first use, so that --help answers at once. The names are the usual ones."""

import importlib


class LazyModule:
    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self.name), attribute)


keras, layers, ops = LazyModule("keras"), LazyModule("keras.layers"), LazyModule("keras.ops")
