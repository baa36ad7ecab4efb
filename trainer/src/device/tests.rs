use super::*;

fn gpu(bf16: bool) -> Device {
    Device::made_up(Some(8), bf16)
}

#[test]
fn auto_is_bf16_where_that_is_quick() {
    use ComputeDtype::{Auto, Bf16, F32};
    let native = if Precision::bf16_is_native() { Precision::Bf16 } else { Precision::F32 };
    let all = |device: &Device| [Auto, F32, Bf16].map(|dtype| device.precision(dtype));
    assert_eq!(all(&Device::cpu()), [native, Precision::F32, Precision::Bf16]);
    assert_eq!(all(&gpu(true)), [Precision::Bf16, Precision::F32, Precision::Bf16]);
    assert_eq!(all(&gpu(false)), [Precision::F32; 3]);
}

#[test]
fn a_type_that_a_device_lacks_is_said_once_and_only_if_asked_for() {
    use ComputeDtype::{Auto, Bf16, F32};
    for dtype in [Auto, F32, Bf16] {
        assert_eq!(Device::cpu().lacks(dtype), None);
        assert_eq!(gpu(true).lacks(dtype), None);
        assert_eq!(gpu(false).lacks(dtype).is_some(), dtype == Bf16);
    }
    insta::assert_snapshot!(
        gpu(false).lacks(Bf16).unwrap(),
        @"compute_dtype: found bf16, but wgpu:1 (RTX) has none: it computes in f32"
    );
}

#[test]
fn names_tell_devices_apart_and_only_a_gpu_has_memory_of_its_own() {
    assert_eq!((Device::cpu().name().as_str(), Device::cpu().memory_bytes()), ("cpu", None));
    assert_eq!((gpu(true).name().as_str(), gpu(true).memory_bytes()), ("wgpu:1 (RTX)", Some(8)));
}

#[test]
fn work_is_done_on_the_backend_of_the_device() {
    struct Name;
    impl OnBackend for Name {
        type Output = &'static str;

        fn on<B: Backend>(self, _: &B::Device) -> &'static str {
            std::any::type_name::<B>()
        }
    }
    assert_eq!(Device::cpu().run(Name), std::any::type_name::<Flex>());
}
