// Sums and maxima over the 256 lanes of a workgroup, known to all of them afterwards.
//#if $SUBGROUP
var<workgroup> partial: array<f32, 64>;

fn sum_lanes(lane: u32, value: f32) -> f32 {
    let sum = subgroupAdd(value);
    workgroupBarrier();
    if (lane % ${SUBGROUP}u == 0u) {
        partial[lane / ${SUBGROUP}u] = sum;
    }
    workgroupBarrier();
    var total = partial[0];
    for (var i = 1u; i < 256u / ${SUBGROUP}u; i++) {
        total += partial[i];
    }
    return total;
}

fn max_lanes(lane: u32, value: f32) -> f32 {
    let most = subgroupMax(value);
    workgroupBarrier();
    if (lane % ${SUBGROUP}u == 0u) {
        partial[lane / ${SUBGROUP}u] = most;
    }
    workgroupBarrier();
    var total = partial[0];
    for (var i = 1u; i < 256u / ${SUBGROUP}u; i++) {
        total = max(total, partial[i]);
    }
    return total;
}
//#else
var<workgroup> partial: array<f32, 256>;

fn sum_lanes(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    partial[lane] = value;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half >>= 1u) {
        if (lane < half) {
            partial[lane] += partial[lane + half];
        }
        workgroupBarrier();
    }
    return partial[0];
}

fn max_lanes(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    partial[lane] = value;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half >>= 1u) {
        if (lane < half) {
            partial[lane] = max(partial[lane], partial[lane + half]);
        }
        workgroupBarrier();
    }
    return partial[0];
}
//#endif
