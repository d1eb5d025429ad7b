"""--data-parallel: one training over all devices of all processes, by keras.distribution (JAX)."""

import argparse
import contextlib
import os
import shutil

import numpy as np

from common.damage import first_line
from common.run import LazyModule, fail, keras

jax = LazyModule("jax")

# How KERAS_DISTRIBUTION_..., Slurm and Open MPI say that there is more than one process.
COUNTS = "KERAS_DISTRIBUTION_NUM_PROCESSES", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"


def add_data_parallel(parser):
    """The flag. Without it, records and checkpoints know nothing of it."""
    text = "share each batch among all devices and processes (JAX)"
    absent = argparse.SUPPRESS
    parser.add_argument("--data-parallel", action="store_true", default=absent, help=text)


class DataParallel:
    """Every process runs the same script on the same data and computes its rows of each batch.

    Made before anything else of a script, as JAX must know of the other processes first. All get
    the same --run-dir, which all can read; process k writes to a folder beside it, whose name
    ends with -process<k>. Without --data-parallel it does nothing.
    """

    def __init__(self, args):
        self.rank, self.count, self.devices = 0, 1, None
        if not hasattr(args, "data_parallel"):
            return
        if keras.backend.backend() != "jax":
            fail("--data-parallel works with JAX: set KERAS_BACKEND=jax")
        if any(int(os.environ.get(name, 1)) > 1 for name in COUNTS):
            if args.run_dir is None:
                fail("--data-parallel: give all processes the same --run-dir")
            try:
                keras.distribution.initialize()
            except Exception as error:  # Of many kinds: a wrong address, a number twice, no answer.
                fail(f"--data-parallel: the processes did not meet: {first_line(error)}")
            self.rank, self.count = jax.process_index(), jax.process_count()
        self.devices = keras.distribution.list_devices()
        args.data_parallel = f"{self.count} processes, {len(self.devices)} devices"
        print(f"process {self.rank} of {args.data_parallel}", flush=True)
        if self.rank:
            first = args.run_dir
            args.run_dir = first.with_name(f"{first.name}-process{self.rank}")
            if args.resume:  # The processes were not stopped at the same moment.
                shutil.rmtree(args.run_dir, ignore_errors=True)
                shutil.copytree(first, args.run_dir)

    @contextlib.contextmanager
    def spread(self, model):
        """Within it `fit` and `evaluate` of a compiled model work on all devices."""
        if self.devices is None:
            yield
            return
        distribution = keras.distribution.DataParallel(
            devices=self.devices, auto_shard_dataset=False
        )
        groups = (model.variables, model.optimizer.variables, model.metrics_variables)
        variables = list({id(v): v for group in groups for v in group}.values())
        for v in variables:
            layout = distribution.get_variable_layout(v)
            v.assign(keras.distribution.distribute_tensor(np.asarray(v), layout))
        keras.distribution.set_distribution(distribution)
        try:
            yield
        finally:
            keras.distribution.set_distribution(None)
        for v in variables:
            v.assign(np.asarray(v))

    def own_rows(self, batches):
        """Of each batch the rows that are computed here."""
        if self.devices is None:
            return batches
        return (keras.tree.map_structure(self.own_part, batch) for batch in batches)

    def own_part(self, x):
        if len(x) % len(self.devices):
            fail(f"--data-parallel: {len(self.devices)} devices cannot share {len(x)} rows")
        return np.split(x, self.count)[self.rank]

    def even(self, arrays):
        """Validation data, less the last few rows that the devices of a process cannot share."""
        devices = len(self.devices or [0]) // self.count
        return keras.tree.map_structure(lambda x: x[: len(x) // devices * devices], arrays)
