//! The inputs of blocks elsewhere between the passes, where memory is too small for them: a GPU's in the
//! host's, or on disk.
//!
//! They are kept as exact f32, so that no bit of a gradient depends on where they were. The file has no
//! name from the moment it is open: whatever ends the process, the disk gets its room back.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::TensorData;
use burn::tensor::TensorMetadata;
use burn::tensor::ops::FloatTensor;
use graft_kernels::Kernels;
use graft_model::param::host_values;

/// What takes tensors and gives them back.
#[derive(Debug)]
pub enum Offload {
    /// The host's memory.
    Host,
    /// A file.
    Disk(ScratchFile),
}

/// A file that takes tensors and gives them back.
#[derive(Debug)]
pub struct ScratchFile {
    path: PathBuf,
    file: File,
    end: AtomicU64,
}

/// A tensor between the passes.
pub(super) enum Waiting<'a, B: Kernels> {
    Here(FloatTensor<B>),
    OnHost(TensorData),
    OnDisk(&'a ScratchFile, Stored),
}

impl<'a, B: Kernels> Waiting<'a, B> {
    /// `tensor`, `[tokens, d_model]`, in `offload`, or here without one.
    pub(super) fn new(
        tensor: FloatTensor<B>,
        offload: Option<&'a Offload>,
    ) -> Result<Self, OffloadError> {
        match offload {
            Some(Offload::Host) => {
                let shape = tensor.shape();
                Ok(Self::OnHost(TensorData::new(host_values::<B>(tensor), shape)))
            }
            Some(Offload::Disk(scratch)) => Ok(Self::OnDisk(scratch, scratch.store::<B>(tensor)?)),
            None => Ok(Self::Here(tensor)),
        }
    }

    pub(super) fn take(self, device: &B::Device) -> Result<FloatTensor<B>, OffloadError> {
        match self {
            Self::Here(tensor) => Ok(tensor),
            Self::OnHost(values) => Ok(B::float_from_data(values, device)),
            Self::OnDisk(scratch, stored) => scratch.load::<B>(&stored, device),
        }
    }
}

/// A tensor on disk.
#[derive(Debug)]
pub(super) struct Stored {
    start: u64,
    shape: [usize; 2],
}

/// The disk did not take a block's input, or did not give it back.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the blocks' inputs in `{}`: {source}", path.display())]
pub struct OffloadError {
    /// What was tried, as an English verb.
    pub action: &'static str,
    /// The file, as it was called when it was made.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

impl Offload {
    /// On disk, in a new file in `folder`.
    ///
    /// # Errors
    /// The system makes none.
    pub fn create(folder: &Path) -> Result<Self, OffloadError> {
        Ok(Self::Disk(ScratchFile::create(folder)?))
    }

    /// Bytes that are kept on disk now.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Host => 0,
            Self::Disk(scratch) => scratch.bytes(),
        }
    }

    /// Everything taken was given back: its room is used again.
    pub(super) fn clear(&self) {
        if let Self::Disk(scratch) = self {
            scratch.clear();
        }
    }
}

impl ScratchFile {
    fn create(folder: &Path) -> Result<Self, OffloadError> {
        let path = folder.join(format!(".activations.tmp-{}", std::process::id()));
        let failed = |source| OffloadError { action: "keep", path: path.clone(), source };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(failed)?;
        fs::remove_file(&path).map_err(failed)?;
        Ok(Self { path, file, end: AtomicU64::new(0) })
    }

    /// Takes `[tokens, d_model]` values.
    fn store<B: Kernels>(&self, tensor: FloatTensor<B>) -> Result<Stored, OffloadError> {
        let shape = tensor.shape().dims();
        let values = host_values::<B>(tensor);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let start = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(&bytes, start).map_err(|source| self.failed("write", source))?;
        Ok(Stored { start, shape })
    }

    /// Gives a tensor back, bit for bit.
    fn load<B: Kernels>(
        &self,
        stored: &Stored,
        device: &B::Device,
    ) -> Result<FloatTensor<B>, OffloadError> {
        let [tokens, d_model] = stored.shape;
        let mut bytes = vec![0; tokens * d_model * size_of::<f32>()];
        let read = self.file.read_exact_at(&mut bytes, stored.start);
        read.map_err(|source| self.failed("read", source))?;
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(B::float_from_data(TensorData::new(values, stored.shape), device))
    }

    /// Everything taken was given back: its room is used again.
    fn clear(&self) {
        self.end.store(0, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |found| found.len())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> OffloadError {
        OffloadError { action, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Shape;
    use burn_flex::Flex;

    use super::*;

    #[test]
    fn tensors_come_back_bit_for_bit_and_the_file_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let offload = ScratchFile::create(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let device = Default::default();
        let tensor = |first: f32| {
            let values = vec![first, f32::MIN_POSITIVE / 4.0, -0.0, f32::NAN, 1e-30, f32::MAX];
            <Flex as burn::tensor::ops::FloatTensorOps<Flex>>::float_from_data(
                TensorData::new(values, Shape::new([2, 3])),
                &device,
            )
        };
        let bits = |tensor| {
            host_values::<Flex>(tensor).iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        for _ in 0..2 {
            let stored: Vec<_> =
                [1.0, 2.0].map(|first| offload.store::<Flex>(tensor(first)).unwrap()).into();
            for (stored, first) in stored.iter().zip([1.0, 2.0]).rev() {
                let found = offload.load::<Flex>(stored, &device).unwrap();
                assert_eq!(found.shape().as_slice(), [2, 3]);
                assert_eq!(bits(found), bits(tensor(first)));
            }
            assert_eq!(offload.bytes(), 2 * 6 * 4);
            offload.clear();
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = ScratchFile::create(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all/.activations.tmp-"), "{error}");
    }
}
