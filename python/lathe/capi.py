"""A thin ctypes binding of include/lathe/lathe.h.

A tensor is anything with data_ptr(), shape, stride(), dtype and device, as torch's. Outputs are given and filled in
place. torch is imported only for tensors on a GPU, and where a workspace is not given. The library is LATHE_LIBRARY, or
liblathe.so beside this file.
"""

import contextlib
import ctypes
import functools
import os
import pathlib
import threading

STATUS = (
    "LATHE_STATUS_SUCCESS",
    "LATHE_STATUS_INVALID_ARGUMENT",
    "LATHE_STATUS_UNSUPPORTED",
    "LATHE_STATUS_OUT_OF_MEMORY",
    "LATHE_STATUS_DEVICE_ERROR",
    "LATHE_STATUS_INTERNAL_ERROR",
)
DTYPES = {"float32": 0, "float64": 1, "bfloat16": 2, "int32": 3}
DEVICES = {"cpu": 0, "cuda": 1}


class LatheError(RuntimeError):
    """A call that returned another status than success; `status` is its name in lathe.h."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 4),
        ("strides", ctypes.c_int64 * 4),
    ]

    @classmethod
    def of(cls, name, tensor):
        """The view of `tensor`; None is an optional tensor that is not given."""
        view = cls()
        if tensor is None:
            return view
        dtype = str(tensor.dtype).rpartition(".")[2]
        if dtype not in DTYPES:
            raise LatheError(STATUS[1], f"{name} is {dtype}, allowed are {', '.join(DTYPES)}")
        shape, strides = tuple(tensor.shape), tuple(tensor.stride())
        if len(shape) > 4:
            raise LatheError(STATUS[1], f"{name} has {len(shape)} dimensions, allowed are at most 4")
        view.data, view.dtype, view.rank = tensor.data_ptr(), DTYPES[dtype], len(shape)
        for dim, (size, stride) in enumerate(zip(shape, strides)):
            view.shape[dim], view.strides[dim] = size, stride
        return view


def _tensors(names):
    return [(name, Tensor) for name in names.split()]


_CALL = [  # where and how, the end of both argument structs
    ("device", ctypes.c_int),
    ("backend", ctypes.c_char_p),
    ("workspace", ctypes.c_void_p),
    ("workspace_size", ctypes.c_size_t),
    ("stream", ctypes.c_void_p),
    ("clock_counters", ctypes.c_void_p),
]


class MlaForwardArgs(ctypes.Structure):
    _fields_ = [
        *_tensors("q_nope q_pe k_nope k_pe v o lse cu_seqlens_q cu_seqlens_k"),
        ("softmax_scale", ctypes.c_double),
        ("causal", ctypes.c_int32),
        *_CALL,
    ]


class MlaBackwardArgs(ctypes.Structure):
    _fields_ = [
        *_tensors("q_nope q_pe k_nope k_pe v o lse do_ dlse dq_nope dq_pe dk_nope dk_pe dv cu_seqlens_q cu_seqlens_k"),
        ("softmax_scale", ctypes.c_double),
        ("causal", ctypes.c_int32),
        ("deterministic", ctypes.c_int32),
        *_CALL,
    ]


@functools.cache
def library():
    path = os.environ.get("LATHE_LIBRARY") or str(pathlib.Path(__file__).with_name("liblathe.so"))
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist; LATHE_LIBRARY names liblathe.so")
    lib = ctypes.CDLL(path)
    size, text = ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_char_p)
    for name, args in (("forward", MlaForwardArgs), ("backward", MlaBackwardArgs)):
        getattr(lib, f"lathe_mla_{name}").argtypes = [ctypes.POINTER(args)]
        getattr(lib, f"lathe_mla_{name}_workspace_size").argtypes = [ctypes.POINTER(args), size]
    lib.lathe_mla_backend.argtypes = [ctypes.POINTER(MlaForwardArgs), text, text]
    for name in ("lathe_last_error", "lathe_version"):
        getattr(lib, name).argtypes = []
        getattr(lib, name).restype = ctypes.c_char_p
    return lib


def _check(status):
    if status:
        name = STATUS[status] if 0 <= status < len(STATUS) else f"status {status}"
        raise LatheError(name, library().lathe_last_error().decode(errors="replace"))


def version():
    return library().lathe_version().decode()


class PreparedCall:
    """A call whose arguments were built once: calling it is one call into the library, on the stream given then.

    It keeps the tensors alive. `args` may be changed between calls.
    """

    def __init__(self, function, args, kept, device):
        self.args = args
        self._function = function
        self._pointer = ctypes.byref(args)
        self._kept = kept
        self._context = _current(device)

    def __call__(self):
        with self._context:
            status = self._function(self._pointer)
        if status:
            _check(status)


def _current(device):
    """The library works on CUDA's current device: the tensors' for as long as this is open. It may be opened again."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    import torch

    return torch.cuda.device(device)


_workspaces = {}  # of calls that bring none: one a thread, device and stream, whose calls follow each other


def _shared_workspace(size, device, stream):
    import torch

    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return torch.zeros(size, dtype=torch.uint8, device=device)  # the graph's own, zeroed in every replay
    key = threading.get_ident(), device, stream
    held = _workspaces.get(key)
    if held is None or held.numel() < size:
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # calls in flight may use the smaller one
        held = _workspaces[key] = torch.zeros(max(size, 1 << 20), dtype=torch.uint8, device=device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # zeroed on torch's stream, used on the caller's
    return held


def _args(kind, tensors, softmax_scale, causal, backend):
    args = kind(softmax_scale=softmax_scale, causal=int(causal))
    for name, tensor in tensors.items():
        setattr(args, name, Tensor.of(name, tensor))
    device = tensors["q_nope"].device.type
    if device not in DEVICES:
        raise LatheError(STATUS[1], f"q_nope lies on {device}, allowed are {', '.join(DEVICES)}")
    args.device = DEVICES[device]
    args.backend = backend.encode() if backend is not None else None
    return args


def _forward_args(q_nope, q_pe, k_nope, k_pe, v, o, lse, *, softmax_scale, causal=True, cu_seqlens_q=None,
                  cu_seqlens_k=None, backend="auto"):
    tensors = dict(q_nope=q_nope, q_pe=q_pe, k_nope=k_nope, k_pe=k_pe, v=v, o=o, lse=lse, cu_seqlens_q=cu_seqlens_q,
                   cu_seqlens_k=cu_seqlens_k)
    return _args(MlaForwardArgs, tensors, softmax_scale, causal, backend), tensors


def _backward_args(q_nope, q_pe, k_nope, k_pe, v, o, lse, do, dq_nope, dq_pe, dk_nope, dk_pe, dv, *, softmax_scale,
                   causal=True, deterministic=False, dlse=None, cu_seqlens_q=None, cu_seqlens_k=None, backend="auto"):
    tensors = dict(q_nope=q_nope, q_pe=q_pe, k_nope=k_nope, k_pe=k_pe, v=v, o=o, lse=lse, do_=do, dlse=dlse,
                   dq_nope=dq_nope, dq_pe=dq_pe, dk_nope=dk_nope, dk_pe=dk_pe, dv=dv, cu_seqlens_q=cu_seqlens_q,
                   cu_seqlens_k=cu_seqlens_k)
    args = _args(MlaBackwardArgs, tensors, softmax_scale, causal, backend)
    args.deterministic = int(deterministic)
    return args, tensors


def _workspace_size(name, args, tensors):
    size = ctypes.c_size_t()
    with _current(tensors["q_nope"].device):
        _check(getattr(library(), f"{name}_workspace_size")(ctypes.byref(args), ctypes.byref(size)))
    return size.value


def _prepare(name, args, tensors, workspace, stream, clock_counters):
    device = tensors["q_nope"].device
    if stream is None and device.type == "cuda":
        import torch

        stream = torch.cuda.current_stream(device).cuda_stream
    if workspace is None:
        size = _workspace_size(name, args, tensors)
        workspace = _shared_workspace(size, device, stream) if size else None
    if workspace is not None:
        args.workspace, args.workspace_size = workspace.data_ptr(), workspace.numel() * workspace.element_size()
    args.stream = stream
    if clock_counters is not None:
        args.clock_counters = clock_counters.data_ptr()
    return PreparedCall(getattr(library(), name), args, (tensors, workspace, clock_counters), device)


def prepare_mla_forward(*tensors, workspace=None, stream=None, clock_counters=None, **options):
    """A PreparedCall of mla_forward, with its arguments."""
    args, kept = _forward_args(*tensors, **options)
    return _prepare("lathe_mla_forward", args, kept, workspace, stream, clock_counters)


def prepare_mla_backward(*tensors, workspace=None, stream=None, clock_counters=None, **options):
    """A PreparedCall of mla_backward, with its arguments."""
    args, kept = _backward_args(*tensors, **options)
    return _prepare("lathe_mla_backward", args, kept, workspace, stream, clock_counters)


def mla_forward(*tensors, **options):
    """Writes o and lse:

    mla_forward(q_nope, q_pe, k_nope, k_pe, v, o, lse, *, softmax_scale, causal=True, cu_seqlens_q=None,
                cu_seqlens_k=None, workspace=None, backend="auto", stream=None, clock_counters=None)

    A workspace is a zeroed tensor; a thread's calls without one share one a stream, which is made, and waited for, when
    it is first needed or too small; a call that torch captures in a graph gets one of the graph's. `stream` is a
    cudaStream_t as an int, by default torch's current one.
    """
    prepare_mla_forward(*tensors, **options)()


def mla_backward(*tensors, **options):
    """Writes the five gradients:

    mla_backward(q_nope, q_pe, k_nope, k_pe, v, o, lse, do, dq_nope, dq_pe, dk_nope, dk_pe, dv, *, softmax_scale,
                 causal=True, deterministic=False, dlse=None, cu_seqlens_q=None, cu_seqlens_k=None, workspace=None,
                 backend="auto", stream=None, clock_counters=None)
    """
    prepare_mla_backward(*tensors, **options)()


def mla_forward_workspace_size(*tensors, **options):
    """Bytes, for mla_forward's tensors and options."""
    return _workspace_size("lathe_mla_forward", *_forward_args(*tensors, **options))


def mla_backward_workspace_size(*tensors, **options):
    """Bytes, for mla_backward's tensors and options."""
    return _workspace_size("lathe_mla_backward", *_backward_args(*tensors, **options))


def mla_backend(*tensors, **options):
    """(name, reason) of the backend that mla_forward, given the same, would run on; LatheError if there is none."""
    args, kept = _forward_args(*tensors, **options)
    name, reason = ctypes.c_char_p(), ctypes.c_char_p()
    with _current(kept["q_nope"].device):
        status = library().lathe_mla_backend(ctypes.byref(args), ctypes.byref(name), ctypes.byref(reason))
    if STATUS[status] == "LATHE_STATUS_UNSUPPORTED" and reason.value:
        raise LatheError(STATUS[status], reason.value.decode())
    _check(status)
    return name.value.decode(), reason.value.decode()
