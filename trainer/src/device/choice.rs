//! What `--device` asks for, and the device that this is.

use std::str::FromStr;

use super::found::not_built;
use super::{Api, Device, Found, found};

/// A device as the command line asks for it: `auto`, `cpu`, `wgpu[:N]`, `cuda[:N]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The best that is there.
    Auto,
    /// The first of a kind, real ones before those that the processor plays.
    First(Api),
    /// One of a kind, by its number.
    Numbered(Api, usize),
}

/// Why there is no such device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDevice {
    /// Nothing of the kind can be used here.
    #[error("--device is {asked}, but {reason}; --device cpu computes without it")]
    Unusable {
        /// What was asked for.
        asked: Choice,
        /// What is missing.
        reason: String,
    },
    /// There are others of its kind.
    #[error("--device is {asked}, but the devices of that kind here are {there}")]
    NoSuch {
        /// What was asked for.
        asked: Choice,
        /// Those that are there.
        there: String,
    },
}

impl std::fmt::Display for Choice {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => out.write_str("auto"),
            Self::First(api) => out.write_str(api.name()),
            Self::Numbered(api, index) => write!(out, "{}:{index}", api.name()),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("found `{text}`, expected auto, cpu, wgpu, wgpu:N, cuda or cuda:N");
        let (kind, index) = match text.split_once(':') {
            Some((kind, index)) => (kind, Some(index)),
            None => (text, None),
        };
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let api = Api::ALL.into_iter().find(|api| api.name() == kind).ok_or_else(refuse)?;
        let choice = match index {
            None => Self::First(api),
            Some(_) if api == Api::Cpu => return Err(refuse()),
            // `usize` would also take a sign.
            Some(index) if index.starts_with('+') => return Err(refuse()),
            Some(index) => Self::Numbered(api, index.parse().map_err(|_| refuse())?),
        };
        if api.is_built() { Ok(choice) } else { Err(not_built(api)) }
    }
}

impl Choice {
    /// The device.
    ///
    /// # Errors
    /// It is not there, with what is missing or what is there.
    pub fn open(self) -> Result<Device, NoDevice> {
        self.among(&found)
    }

    fn among(self, found: &dyn Fn(Api) -> Result<Vec<Found>, String>) -> Result<Device, NoDevice> {
        let (api, index) = match self {
            Self::Auto => {
                let real = |api| {
                    let there = found(api).unwrap_or_default();
                    let real = there.into_iter().find(|found| !found.software)?;
                    Some(Device { api, found: real })
                };
                let best = [Api::Cuda, Api::Wgpu].into_iter().find_map(real);
                return Ok(best.unwrap_or_else(Device::cpu));
            }
            Self::First(api) => (api, None),
            Self::Numbered(api, index) => (api, Some(index)),
        };
        let there = found(api).map_err(|reason| NoDevice::Unusable { asked: self, reason })?;
        let device = match index {
            None => there.iter().min_by_key(|found| found.software),
            Some(index) => there.iter().find(|found| found.index == index),
        };
        if let Some(found) = device {
            return Ok(Device { api, found: found.clone() });
        }
        if there.is_empty() {
            let reason = "no device of that kind answers".to_owned();
            return Err(NoDevice::Unusable { asked: self, reason });
        }
        let name = |found: &Found| format!("{}:{} ({})", api.name(), found.index, found.name);
        let there = there.iter().map(name).collect::<Vec<_>>().join(", ");
        Err(NoDevice::NoSuch { asked: self, there })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: usize, software: bool) -> Found {
        let name = if software { "llvmpipe" } else { "RTX" }.to_owned();
        let (driver, memory_bytes) = (None, Some(1 << 30));
        Found { index, name, driver, software, memory_bytes, bf16: !software, f16: true }
    }

    /// A machine with a software rasteriser, and perhaps real devices.
    fn opened(choice: Choice, wgpu: &[Found], cuda: &[Found]) -> Result<String, String> {
        let found = |api| match api {
            Api::Cpu => found(Api::Cpu),
            Api::Wgpu => Ok(wgpu.to_vec()),
            Api::Cuda if cuda.is_empty() => Err("there is no NVIDIA driver".to_owned()),
            Api::Cuda => Ok(cuda.to_vec()),
        };
        choice.among(&found).map(|device| device.name()).map_err(|error| error.to_string())
    }

    #[test]
    fn text_reads_back_and_everything_else_is_refused_with_what_can_be() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("cpu".parse(), Ok(Choice::First(Api::Cpu)));
        for text in ["", "gpu", "CPU", "auto:1", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "wgpu:+1"] {
            let refused = text.parse::<Choice>().unwrap_err();
            assert!(refused.contains(&format!("found `{text}`")), "{refused}");
            assert!(refused.contains("auto, cpu, wgpu, wgpu:N, cuda or cuda:N"), "{refused}");
        }
        for (text, api) in
            [("wgpu", Api::Wgpu), ("wgpu:3", Api::Wgpu), ("cuda", Api::Cuda), ("cuda:0", Api::Cuda)]
        {
            match text.parse::<Choice>() {
                Ok(choice) => {
                    assert_eq!((choice.to_string().as_str(), api.is_built()), (text, true));
                }
                Err(refused) => {
                    assert!(!api.is_built());
                    let build = format!("`cargo build --release --features {}`", api.name());
                    assert!(refused.contains(&build), "{refused}");
                }
            }
        }
    }

    #[test]
    fn auto_takes_cuda_then_a_real_gpu_then_the_cpu() {
        let soft = [gpu(0, true)];
        let both = [gpu(0, true), gpu(1, false)];
        let auto = |wgpu: &[Found], cuda: &[Found]| opened(Choice::Auto, wgpu, cuda).unwrap();
        assert_eq!(auto(&[], &[]), "cpu");
        assert_eq!(auto(&soft, &[]), "cpu");
        assert_eq!(auto(&both, &[]), "wgpu:1 (RTX)");
        assert_eq!(auto(&both, &[gpu(0, false)]), "cuda:0 (RTX)");
    }

    #[test]
    fn a_kind_is_its_first_real_device_and_a_number_that_one() {
        let both = [gpu(0, true), gpu(1, false)];
        let wgpu = |choice, there: &[Found]| opened(choice, there, &[]);
        assert_eq!(wgpu(Choice::First(Api::Wgpu), &both), Ok("wgpu:1 (RTX)".to_owned()));
        assert_eq!(wgpu(Choice::First(Api::Wgpu), &both[..1]), Ok("wgpu:0 (llvmpipe)".to_owned()));
        let first = Choice::Numbered(Api::Wgpu, 0);
        assert_eq!(wgpu(first, &both), Ok("wgpu:0 (llvmpipe)".to_owned()));
        insta::assert_snapshot!(
            wgpu(Choice::Numbered(Api::Wgpu, 7), &both).unwrap_err(),
            @"--device is wgpu:7, but the devices of that kind here are wgpu:0 (llvmpipe), wgpu:1 (RTX)"
        );
        insta::assert_snapshot!(
            wgpu(Choice::First(Api::Wgpu), &[]).unwrap_err(),
            @"--device is wgpu, but no device of that kind answers; --device cpu computes without it"
        );
        insta::assert_snapshot!(
            wgpu(Choice::Numbered(Api::Cuda, 0), &both).unwrap_err(),
            @"--device is cuda:0, but there is no NVIDIA driver; --device cpu computes without it"
        );
    }
}
