"""Where the numbers of an HDF5 dataset lie: all of them in the file itself, or it is refused.

HDF5 lets a dataset be a link into another file, a view of others, or of a size that nobody wrote:
a file of a kilobyte may read any file of this machine, or declare more events than there are.
"""

import math
from pathlib import Path

import h5py

from engines.errors import ArtifactError

__all__ = ["find_object"]

#: A chunk is read and decompressed whole.
_MAX_CHUNK_BYTES = 2**30


def find_object(file: h5py.File, name: str, path: Path) -> h5py.HLObject | None:
    """Return what a file holds under a name, None if nothing.

    Args:
        file: open for reading.
        name: in the file's root.
        path: of the file, for the error's text.

    Raises:
        ArtifactError: if the name is a link, or a dataset is not stored whole in this file.
    """
    link = file.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        target = getattr(link, "filename", link.path)
        msg = f"{name!r} in {path} must be stored there; got a link to {target!r}; copy it in"
        raise ArtifactError(msg)
    found = file[name]
    if isinstance(found, h5py.Dataset) and found.shape is not None:
        _check_stored(found, name, path)
    return found


def _check_stored(dataset: h5py.Dataset, name: str, path: Path) -> None:
    if dataset.is_virtual or dataset.external:
        msg = f"{name!r} in {path} must be stored there; its numbers lie in other files; copy them"
        raise ArtifactError(msg)
    if dataset.chunks is None:
        wanted, got, unit = dataset.size * dataset.dtype.itemsize, _stored_bytes(dataset), "bytes"
    else:
        _check_chunk(dataset, name, path)
        sizes = zip(dataset.shape, dataset.chunks, strict=True)
        wanted = math.prod(-(-size // chunk) for size, chunk in sizes)
        got, unit = dataset.id.get_num_chunks(), "chunks"
    if got < wanted:
        msg = f"{name!r} in {path} must hold {wanted} {unit}; got {got}; write the file again"
        raise ArtifactError(msg)


def _stored_bytes(dataset: h5py.Dataset) -> int:
    """Return how many bytes of a dataset without chunks the file holds."""
    stored, first = int(dataset.id.get_storage_size()), dataset.id.get_offset()
    if first is None:  # within the file's own records, or nowhere
        return stored
    return min(stored, int(dataset.file.id.get_filesize()) - int(first))


def _check_chunk(dataset: h5py.Dataset, name: str, path: Path) -> None:
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if size > _MAX_CHUNK_BYTES:
        msg = (
            f"{name!r} in {path} must be stored in chunks of at most {_MAX_CHUNK_BYTES} bytes; "
            f"got {size}; write it with smaller ones"
        )
        raise ArtifactError(msg)
