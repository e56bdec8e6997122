// y[0] = lanes of a subgroup; y[1] = 1 if lane l of a workgroup is lane l % y[0] of its subgroup.
@group(0) @binding(0) var<storage, read_write> y: array<u32>;

var<workgroup> odd: atomic<u32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_size) size: u32,
        @builtin(subgroup_invocation_id) place: u32, @builtin(subgroup_id) subgroup: u32) {
    if (lane == 0u) {
        atomicStore(&odd, 0u);
    }
    workgroupBarrier();
    if (subgroup * size + place != lane) {
        atomicStore(&odd, 1u);
    }
    workgroupBarrier();
    if (lane == 0u) {
        y[0] = size;
        y[1] = 1u - atomicLoad(&odd);
    }
}
