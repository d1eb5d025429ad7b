"""--data-parallel: one training over all devices of all processes, by keras.distribution (JAX)."""

import argparse
import contextlib
import os
import shutil

import keras
import numpy as np

from common.cli import fail, first_line

# The variables by which KERAS_DISTRIBUTION_..., Slurm and Open MPI say how many processes run.
PROCESS_COUNTS = ("KERAS_DISTRIBUTION_NUM_PROCESSES", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


def add_data_parallel(parser):
    """Adds the flag. Where it is not given, records and checkpoints do not mention it."""
    parser.add_argument(
        "--data-parallel",
        action="store_true",
        default=argparse.SUPPRESS,
        help="share each batch among all devices and processes (JAX)",
    )


class DataParallel:
    """Every process runs the same script on the same data and computes its rows of each batch.

    Create it before anything else in a script, because JAX must hear of the other processes
    first. All processes get the same --run-dir, which all can read; process k writes to a folder
    beside it whose name ends in -process<k>. Without --data-parallel this class does nothing.

    Attributes:
        devices: the devices of all processes; None without --data-parallel.
        rank: the number of this process, from 0.
        count: the number of processes.
    """

    def __init__(self, args):
        self.rank = 0
        self.count = 1
        self.devices = None
        if not hasattr(args, "data_parallel"):
            return
        if keras.backend.backend() != "jax":
            fail("--data-parallel works with JAX: set KERAS_BACKEND=jax")
        if any(int(os.environ.get(name, 1)) > 1 for name in PROCESS_COUNTS):
            self.join_processes(args.run_dir)
        self.devices = keras.distribution.list_devices()
        args.data_parallel = f"{self.count} processes, {len(self.devices)} devices"
        print(f"process {self.rank} of {args.data_parallel}", flush=True)
        if self.rank > 0:
            self.move_run_folder(args)

    def join_processes(self, run_dir):
        if run_dir is None:
            fail("--data-parallel: give all processes the same --run-dir")
        import jax  # Here, because the other backends run without it.

        try:
            keras.distribution.initialize()
        except Exception as error:  # A wrong address, a number used twice, no answer.
            fail(f"--data-parallel: the processes did not meet: {first_line(error)}")
        self.rank = jax.process_index()
        self.count = jax.process_count()

    def move_run_folder(self, args):
        """Gives this process a folder of its own; a resumed run starts from that of process 0."""
        first = args.run_dir
        args.run_dir = first.with_name(f"{first.name}-process{self.rank}")
        if args.resume:  # The processes were not stopped at the same moment.
            shutil.rmtree(args.run_dir, ignore_errors=True)
            shutil.copytree(first, args.run_dir)

    @contextlib.contextmanager
    def spread(self, model):
        """A context in which `fit` and `evaluate` of a compiled model work on all devices."""
        if self.devices is None:
            yield
            return
        distribution = keras.distribution.DataParallel(
            devices=self.devices, auto_shard_dataset=False
        )
        variables = all_variables(model)
        for variable in variables:
            layout = distribution.get_variable_layout(variable)
            tensor = keras.distribution.distribute_tensor(np.asarray(variable), layout)
            variable.assign(tensor)
        keras.distribution.set_distribution(distribution)
        try:
            yield
        finally:
            keras.distribution.set_distribution(None)
        for variable in variables:
            variable.assign(np.asarray(variable))

    def own_rows(self, batches):
        """Those rows of each batch that this process computes.

        Args:
            batches: a PyDataset.
        """
        if self.devices is None:
            return batches
        return OwnRows(batches, self)

    def own_part(self, array):
        if len(array) % len(self.devices):
            fail(f"--data-parallel: {len(self.devices)} devices cannot share {len(array)} rows")
        return np.split(array, self.count)[self.rank]

    def even(self, arrays):
        """Validation data without the last few rows, which the devices cannot share evenly."""
        if self.devices is None:
            return arrays
        devices = len(self.devices) // self.count
        return keras.tree.map_structure(lambda x: x[: len(x) // devices * devices], arrays)


class OwnRows(keras.utils.PyDataset):
    """The batches of another PyDataset, each reduced to the rows of this process."""

    def __init__(self, batches, parallel):
        super().__init__()
        self.batches = batches
        self.parallel = parallel

    @property
    def num_batches(self):
        return self.batches.num_batches

    def __getitem__(self, index):
        return keras.tree.map_structure(self.parallel.own_part, self.batches[index])


def all_variables(model):
    """Each variable of a compiled model once: weights, optimizer and metrics."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return list({id(variable): variable for variable in variables}.values())
