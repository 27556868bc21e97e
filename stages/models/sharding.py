"""A base whose layers are shared out among the processes (FSDP2), for one that does not fit a single GPU.

Only the frozen layers are sharded. LoRA and heads come on top of it afterwards, whole on every process, and their
gradients are averaged as ever; so checkpoints and adapters are the files that they are without sharding. Each forward
pass fetches every layer, so all processes have to make the same number of passes. On several machines each holds all
layers among its own GPUs: what is fetched for every token never crosses the network.
"""

from typing import Any

from stages.runtime import processes
from stages.runtime.errors import UserError


def shard(model: Any, name: str) -> Any:
    """Share the decoder layers out and bring the rest (embeddings, norm, head) to this process's device, whole.

    Raises:
        UserError: the model's layers are in no list of their own.
    """
    from torch import nn
    from torch.distributed.fsdp import fully_shard

    device = processes.device()
    trunk = model.base_model
    count = model.config.get_text_config().num_hidden_layers
    layers = next((m for m in trunk.modules() if isinstance(m, nn.ModuleList) and len(m) == count), None)
    if layers is None:
        raise UserError(f"model.fsdp: {name} has no list of {count} layers to share out; set it to false")
    mesh = mesh_of_processes(device.type)
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    sharded = {id(parameter) for parameter in layers.parameters()}
    whole = {parameter for parameter in model.parameters() if id(parameter) not in sharded}
    for tensor in (*whole, *model.buffers()):
        tensor.data = tensor.data.to(device)
    fully_shard(trunk, mesh=mesh, ignored_params=whole)  # holds nothing itself: lets the layers be fetched ahead
    return model


def mesh_of_processes(device_type: str) -> Any:
    """The processes that share the layers out: [machines, processes of each], and copies across the first dimension.

    One dimension, of all processes, where there is one machine, where each has one process, and where they differ.
    """
    from torch.distributed.device_mesh import init_device_mesh

    count, (here, *others) = processes.count(), processes.everyones(processes.count_here())
    if here in (1, count) or any(other != here for other in others):
        return init_device_mesh(device_type, (count,))
    return init_device_mesh(device_type, (count // here, here), mesh_dim_names=("machines", "processes"))


def is_sharded(model: Any) -> bool:
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def average_gradients(trainer: Any) -> None:
    """Make transformers' Trainer train on a sharded base: DDP, which it would wrap around the model, refuses one."""
    import functools

    import torch
    import torch.distributed as dist

    accelerator = trainer.accelerator
    accelerator.prepare_model = functools.partial(accelerator.prepare_model, evaluation_mode=True)  # without DDP
    clip = accelerator.clip_grad_norm_
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    for parameter in trained:
        dist.broadcast(parameter.data, src=0)

    def average_and_clip(*arguments: Any, **more: Any) -> Any:
        """Once per optimizer step, all gradients in one message."""
        gradients = [parameter.grad for parameter in trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat, op=dist.ReduceOp.AVG)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
        return clip(*arguments, **more)

    accelerator.clip_grad_norm_ = average_and_clip
