//! The list of devices that the list of cases is run on.

/// One test of each case on each device: the two lists that conformance is the product of; and one
/// of each case on all the devices whose results must have the same bits.
/// `sample_all` runs one random case of everything on a device that watches.
#[macro_export]
macro_rules! on_every_device {
    ($($name:ident: $case:ty,)+) => {
        $crate::on_every_device!(@devices [$($name: $case,)+]
            cpu: $crate::devices::best,
            cpu_each_isa: $crate::devices::each_isa,
            cpu_plain: $crate::devices::plain,
            cpu_poisoned: $crate::devices::poisoned,
            cpu_decomposed: $crate::devices::decomposed,
            gpu: $crate::devices::gpu,
            gpu_bare: $crate::devices::gpu_bare,
            gpu_poisoned: $crate::devices::gpu_poisoned,
            gpu_mapped: $crate::devices::gpu_mapped,
        );
        mod cpu_alike {
            $( #[test] fn $name() { $crate::agree::<$case>($crate::devices::alike); } )+
        }
        fn sample_all(device: &kiln_array::Device) {
            $( $crate::sample::<$case>(device); )+
        }
    };
    (@devices $cases:tt $($device:ident: $make:path,)+) => {
        $( $crate::on_every_device!(@cases $device $make, $cases); )+
    };
    (@cases $device:ident $make:path, [$($name:ident: $case:ty,)+]) => {
        mod $device {
            $( #[test] fn $name() { $crate::check::<$case>($make); } )+
        }
    };
}
