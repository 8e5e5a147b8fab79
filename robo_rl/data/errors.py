"""What can be wrong with a dataset. Every message says where, what was expected, and what to do."""


class DatasetError(Exception):
    """Base of every error that reading, writing or importing a dataset can raise."""


class DatasetNotFoundError(DatasetError):
    """No dataset of this name or path."""


class DatasetExistsError(DatasetError):
    """A dataset of this name is already there and would have been overwritten."""


class DatasetCorruptError(DatasetError):
    """The files of a dataset are there and cannot be what they claim to be."""


class DatasetWriteError(DatasetError):
    """The disk refused. Nothing was left behind."""


class DatasetChangedError(DatasetError):
    """Other data lie where a run's data lay."""
