"""cuDNN's own attention, through the graph interface of its frontend."""

import itertools

import cudnn
import torch

from .common import SOFTMAX_SCALE

BF16, FP32 = cudnn.data_type.BFLOAT16, cudnn.data_type.FLOAT


class Plan:
    """A graph of one operation; its tensors are known by number."""

    def __init__(self, handle):
        self.handle = handle
        self.graph = cudnn.pygraph(
            io_data_type=BF16, intermediate_data_type=FP32, compute_data_type=FP32, handle=handle)
        self.numbers = itertools.count(1)
        self.inputs = []
        self.outputs = []

    def input(self, name, tensor):
        number = next(self.numbers)
        self.inputs.append(number)
        return self.graph.tensor(name=name, dim=list(tensor.shape), stride=list(tensor.stride()), uid=number,
                                 data_type=FP32 if tensor.dtype == torch.float32 else BF16)

    def output(self, node, tensor):
        number = next(self.numbers)
        self.outputs.append(number)
        node.set_output(True).set_dim(list(tensor.shape)).set_stride(list(tensor.stride())).set_uid(number)
        node.set_data_type(FP32 if tensor.dtype == torch.float32 else BF16)

    def build(self):
        self.graph.validate()
        self.graph.build_operation_graph()
        self.graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        self.graph.check_support()
        self.graph.build_plans()
        self.workspace = torch.empty(max(self.graph.get_workspace_size(), 256), device="cuda", dtype=torch.uint8)

    def run(self, inputs, outputs):
        cudnn.set_stream(handle=self.handle, stream=torch.cuda.current_stream().cuda_stream)
        tensors = dict(zip(self.inputs + self.outputs, (*inputs, *outputs)))
        self.graph.execute(tensors, self.workspace, handle=self.handle)


def heads_first(*tensors):
    return [tensor.transpose(1, 2) for tensor in tensors]


class Peer:
    name = "cudnn"

    def __init__(self, device):
        self.handle = cudnn.create_handle()
        self.version = f"cuDNN {cudnn.backend_version()}, cudnn-frontend {cudnn.__version__}"

    def forward(self, shape, sample):
        plan = Plan(self.handle)
        q, k, v, o = heads_first(sample.q, sample.k, sample.v, sample.o)
        results = plan.graph.sdpa(
            q=plan.input("q", q), k=plan.input("k", k), v=plan.input("v", v), generate_stats=True,
            attn_scale=SOFTMAX_SCALE, use_causal_mask=shape.causal, name="sdpa")
        plan.output(results[0], o)
        plan.output(results[1], sample.lse.unsqueeze(-1))
        plan.build()

        def run(q, k, v, o, lse):
            plan.run((q, k, v), (o, lse))
            return o, lse

        return run

    def backward(self, shape, sample, deterministic):
        plan = Plan(self.handle)
        q, k, v, o, do, dq, dk, dv = heads_first(
            sample.q, sample.k, sample.v, sample.o, sample.do, sample.dq, sample.dk, sample.dv)
        gradients = plan.graph.sdpa_backward(
            q=plan.input("q", q), k=plan.input("k", k), v=plan.input("v", v), o=plan.input("o", o),
            dO=plan.input("do", do), stats=plan.input("stats", sample.lse.unsqueeze(-1)), attn_scale=SOFTMAX_SCALE,
            use_causal_mask=shape.causal, use_deterministic_algorithm=deterministic, name="sdpa_backward")
        for node, tensor in zip(gradients, (dq, dk, dv)):
            plan.output(node, tensor)
        plan.build()

        def run(q, k, v, o, lse, do, dq, dk, dv):
            plan.run((q, k, v, o, do, lse), (dq, dk, dv))

        return run
