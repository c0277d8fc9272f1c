"""GPUs that are not there: what XLA must know of one to compile for it.

Source of the facts: XLA's own descriptions (`xla/backends/gpu/target_config/specs`,
`h200.txtpb` and its neighbours) and NVIDIA's data sheets.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        name: As its driver says it.
        capability: Major compute capability.
        cores, lanes: Multiprocessors, and float32 units in each.
        core_memory, block_memory: Shared memory of a multiprocessor, and what a block
            may have of it, in bytes.
        cache, memory: L2 and device memory, in bytes.
        bandwidth: Of the memory, bytes per second.
        clock_ghz: Highest.
    """

    name: str
    capability: int
    cores: int
    lanes: int
    core_memory: int
    block_memory: int
    cache: int
    memory: int
    bandwidth: int
    clock_ghz: float

    def description(self) -> str:
        """In the form in which XLA reads it (`GpuTargetConfigProto`, as text)."""
        # From Hopper on, its matrix units are an extension of the capability.
        extension = "feature_extension: ACCELERATED_FEATURES" * (self.capability >= 9)
        return f"""
            platform_name: "CUDA"
            device_description_str: "{self.name}"
            dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
            gpu_device_info {{
                cuda_compute_capability {{ major: {self.capability} {extension} }}
                core_count: {self.cores}
                fpus_per_core: {self.lanes}
                clock_rate_ghz: {self.clock_ghz}
                memory_bandwidth: {self.bandwidth}
                device_memory_size: {self.memory}
                l2_cache_size: {self.cache}
                shared_memory_per_core: {self.core_memory}
                shared_memory_per_block: 49152
                shared_memory_per_block_optin: {self.block_memory}
                registers_per_core_limit: 65536
                registers_per_block_limit: 65536
                threads_per_warp: 32
                threads_per_block_limit: 1024
                threads_per_core_limit: 2048
                block_dim_limit_x: 2147483647
                block_dim_limit_y: 65535
                block_dim_limit_z: 65535
            }}
        """


_HOPPER = (9, 132, 128, 233472, 232448, 52428800)
GPUS = {
    "a100": Gpu(
        *("NVIDIA A100-SXM4-80GB", 8, 108, 64, 167936, 166912, 41943040),
        *(85100068864, 2039040000000, 1.41),
    ),
    "h100": Gpu("NVIDIA H100 80GB HBM3", *_HOPPER, 84942979072, 3352320000000, 1.98),
    "h200": Gpu("NVIDIA H200 141GB HBM3e", *_HOPPER, 151397597184, 4800000000000, 1.98),
    "b200": Gpu(
        *("NVIDIA B200", 10, 148, 128, 233472, 232448, 132644864),
        *(191514411008, 7672320000000, 1.965),
    ),
}
