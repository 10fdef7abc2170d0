"""Every error that CrossEAI raises.

::

    CrossEAIError
    ├── InputError (ValueError)        a file, array or argument is not what it must be
    │   ├── UnreadableImageError       the bytes cannot be decoded
    │   └── UnsupportedImageError      decodable, but not a radiograph that can be scored
    ├── ContractError (ValueError)     an artifact or a server differs from the model spec
    ├── ServerError                    the inference server failed
    │   ├── ServerUnavailable          nobody answers, or it went away
    │   ├── InferenceTimeout           no answer within the deadline
    │   └── AccessRefused              the server wants other credentials
    ├── OutputError                    results cannot be written
    └── PostprocError                  the box algorithm refused its input
        ├── InvalidMapError (ValueError)
        └── InvalidMaskError (ValueError)

Messages name what was checked, what was expected and what was found.
"""


class CrossEAIError(Exception):
    """Base of every error raised on purpose by this project."""


class InputError(CrossEAIError, ValueError):
    """A file, array or argument is not what it must be."""


class UnreadableImageError(InputError):
    """The file cannot be decoded: truncated, corrupt, or of no known image format."""


class UnsupportedImageError(InputError):
    """The file decodes, but is not a single-frame grayscale radiograph."""


class ContractError(CrossEAIError, ValueError):
    """An artifact, a tensor or a server differs from the model spec."""


class ServerError(CrossEAIError):
    """The inference server failed a request."""


class ServerUnavailable(ServerError):
    """Nobody answers at the server's address, or the server went away."""


class InferenceTimeout(ServerError):
    """The server did not answer within the deadline."""


class AccessRefused(ServerError):
    """The server refuses the credentials: no token, a wrong one, or one without the right."""


class OutputError(CrossEAIError):
    """Results cannot be written: a full disk, a read-only folder."""


class PostprocError(CrossEAIError):
    """The box algorithm refused its input."""


class InvalidMapError(PostprocError, ValueError):
    """A heat map, gradient map, fused map or parameter has the wrong dtype, shape or values."""


class InvalidMaskError(PostprocError, ValueError):
    """A mask or a rectangle list has the wrong dtype, shape or values."""


def reason(error: Exception) -> str:
    """What went wrong, for a message that names the file already, as an ``OSError`` would do again."""
    return str((isinstance(error, OSError) and error.strerror) or error)
