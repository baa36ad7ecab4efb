//! Which of a processor's instructions the kernels use: looked up once, for all of them.
//!
//! An environment variable lowers the choice, so that the kernels of other processors can be run, and
//! measured, on this one.

use std::sync::LazyLock;

use crate::precision::Precision;

/// What the kernels may use, from the least to the most; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler takes for granted.
    Portable,
    /// AVX2 and FMA: eight f32 lanes.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: sixteen f32 lanes.
    Avx512,
    /// AVX-512 BF16 as well: values are rounded to bf16, and pairs of them multiplied, by instructions of
    /// their own.
    Avx512Bf16,
}

/// [`Isa::VARIABLE`] asks for what cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// No level has the name.
    #[error("{} is `{found}`, but it takes {}", Isa::VARIABLE, choices(Isa::Avx512Bf16))]
    Unknown {
        /// What the variable holds.
        found: String,
    },
    /// The processor has less.
    #[error(
        "{} is `{}`, but this processor has `{}` at most; it takes {}",
        Isa::VARIABLE, found.name(), processor.name(), choices(*processor)
    )]
    Lacking {
        /// What the variable asks for.
        found: Isa,
        /// What the processor has.
        processor: Isa,
    },
}

/// The names up to `most`, for messages.
fn choices(most: Isa) -> String {
    let names: Vec<&str> = Isa::ALL.into_iter().filter(|&isa| isa <= most).map(Isa::name).collect();
    match &names[..] {
        [names @ .., last] if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        _ => names.concat(),
    }
}

impl Isa {
    /// Every level, from the least.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// The environment variable that lowers the level; it never raises it. To name the processor's own asks
    /// for all its instructions, see [`multiplies_pairs`].
    pub const VARIABLE: &str = "GRAFT_CPU_KERNELS";

    /// The name as [`Self::VARIABLE`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
        }
    }

    /// How products of operands of this precision are computed, for people.
    pub fn product(self, precision: Precision) -> &'static str {
        match (precision, self) {
            (Precision::F32, Self::Portable) => "portable f32",
            (Precision::F32, Self::Avx2) => "AVX2 with FMA, 8 lanes of f32",
            (Precision::F32, Self::Avx512 | Self::Avx512Bf16) => "AVX-512, 16 lanes of f32",
            (Precision::Bf16, Self::Portable) => "portable f32, of operands rounded to bf16",
            (Precision::Bf16, Self::Avx2) => {
                "AVX2 with FMA, 8 lanes of f32, of operands rounded to bf16"
            }
            (Precision::Bf16, Self::Avx512Bf16) if multiplies_pairs() => {
                "AVX-512 BF16, 32 pairs of bf16"
            }
            (Precision::Bf16, Self::Avx512 | Self::Avx512Bf16) => {
                "AVX-512, 16 lanes of f32, of operands rounded to bf16"
            }
        }
    }

    /// What a processor of this level lacks, and what is used instead, as a sentence; nothing at the
    /// highest.
    pub fn lacking(self) -> Option<&'static str> {
        match self {
            Self::Portable => Some(
                "This processor has no AVX2 with FMA that the kernels could use: they are portable \
                 code, several times slower, and bf16 is no faster than f32.",
            ),
            Self::Avx2 => Some(
                "This processor has no AVX-512: the kernels use AVX2, and bf16 is no faster than f32.",
            ),
            Self::Avx512 => Some(
                "This processor has no AVX-512 BF16: the kernels use AVX-512, and bf16 is no faster \
                 than f32.",
            ),
            Self::Avx512Bf16 => None,
        }
    }

    /// The highest level that this processor has.
    pub fn of_processor() -> Self {
        static FOUND: LazyLock<Isa> = LazyLock::new(detect);
        *FOUND
    }

    /// The level in use: the processor's, or the lower one that [`Self::VARIABLE`] names.
    ///
    /// # Errors
    /// The variable names no level, or one that the processor lacks.
    pub fn in_use() -> Result<Self, IsaError> {
        static CHOSEN: LazyLock<Result<Isa, IsaError>> = LazyLock::new(|| {
            let asked = std::env::var_os(Isa::VARIABLE);
            let asked = asked.map(|asked| asked.to_string_lossy().into_owned());
            lowered(Isa::of_processor(), asked.as_deref())
        });
        CHOSEN.clone()
    }

    /// The name of what computes sums of operands of this precision in this process: where it is the same,
    /// kernels on the CPU give the same bits. It is that of the least level that sums so: AVX-512 BF16
    /// differs from AVX-512 in products of pairs of bf16 alone, see [`multiplies_pairs`].
    ///
    /// # Errors
    /// As [`Self::in_use`].
    pub fn arithmetic(precision: Precision) -> Result<&'static str, IsaError> {
        let isa = Self::in_use()?;
        let has_pairs = precision == Precision::Bf16 && multiplies_pairs();
        Ok(if isa == Self::Avx512Bf16 && !has_pairs { Self::Avx512.name() } else { isa.name() })
    }

    /// The level in use, for kernels.
    #[inline]
    pub(super) fn get() -> Self {
        static CHOSEN: LazyLock<Isa> = LazyLock::new(|| match Isa::in_use() {
            Ok(isa) => isa,
            // The command asks before anything else, and refuses.
            Err(error) => panic!("{error}"),
        });
        *CHOSEN
    }
}

/// Whether [`Isa::VARIABLE`] names the level.
pub fn is_named() -> bool {
    std::env::var_os(Isa::VARIABLE).is_some_and(|asked| !asked.is_empty())
}

/// Whether products of bf16 multiply pairs of them (`vdpbf16ps`), instead of the same values as f32.
///
/// On AMD's processors (Zen 4) that is twice as fast. Intel's (Emerald Rapids, measured) begin such an
/// instruction every other cycle, but two of f32 in each: 82 and 156 GFLOP/s a core. There pairs are
/// multiplied only where [`Isa::VARIABLE`] names the level.
pub fn multiplies_pairs() -> bool {
    static PAIRS: LazyLock<bool> =
        LazyLock::new(|| Isa::get() == Isa::Avx512Bf16 && (is_named() || !is_intel()));
    *PAIRS
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let found = std::arch::x86_64::__cpuid(0);
    let name = [found.ebx, found.edx, found.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

/// The level that `asked` names, if `processor` has it; an empty name asks for nothing.
fn lowered(processor: Isa, asked: Option<&str>) -> Result<Isa, IsaError> {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(processor) };
    let found = Isa::ALL.into_iter().find(|isa| isa.name() == asked);
    let found = found.ok_or_else(|| IsaError::Unknown { found: asked.to_owned() })?;
    if found > processor { Err(IsaError::Lacking { found, processor }) } else { Ok(found) }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return Isa::Portable;
    }
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx512, is_x86_feature_detected!("avx512bf16")) {
        (false, _) => Isa::Avx2,
        (true, false) => Isa::Avx512,
        (true, true) => Isa::Avx512Bf16,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_lowered_and_never_raised() {
        for (at, processor) in Isa::ALL.into_iter().enumerate() {
            assert_eq!(lowered(processor, None), Ok(processor));
            assert_eq!(lowered(processor, Some("")), Ok(processor));
            for (place, asked) in Isa::ALL.into_iter().enumerate() {
                let lacking = Err(IsaError::Lacking { found: asked, processor });
                let expected = if place > at { lacking } else { Ok(asked) };
                assert_eq!(lowered(processor, Some(asked.name())), expected);
            }
        }
    }

    /// Each in a process of its own, since a process chooses once.
    #[test]
    fn lesser_processors_pass_the_same_tests_of_packing_and_decoding() {
        let here = std::env::current_exe().unwrap();
        let had = |isa: &Isa| *isa <= Isa::get();
        for isa in Isa::ALL.into_iter().filter(had) {
            let mut tests = std::process::Command::new(&here);
            tests.args(["flex::", "--skip", "flex::isa::"]).env(Isa::VARIABLE, isa.name());
            let output = tests.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}: {said}", isa.name());
            let one = "flex::decode::tests::runs_are_those_of_the_matrix_to_the_bit ... ok";
            assert!(said.contains(one), "{}: {said}", isa.name());
        }
    }

    #[test]
    fn the_arithmetic_in_use_has_the_name_of_the_least_level_that_sums_so() {
        let level = Isa::in_use().unwrap();
        let [plain, pairs] =
            [Precision::F32, Precision::Bf16].map(|it| Isa::arithmetic(it).unwrap());
        assert!(level.name().starts_with(plain), "{plain} at {level:?}");
        assert_ne!(plain, Isa::Avx512Bf16.name());
        assert_eq!(pairs == Isa::Avx512Bf16.name(), multiplies_pairs(), "{pairs}");
    }

    #[test]
    fn a_refusal_names_the_choices() {
        let refused = |processor, asked| lowered(processor, Some(asked)).unwrap_err().to_string();
        let said = [
            refused(Isa::Avx2, "sse9"),
            refused(Isa::Avx2, "avx512"),
            refused(Isa::Portable, "avx2"),
        ];
        assert_eq!(
            said,
            [
                "GRAFT_CPU_KERNELS is `sse9`, but it takes portable, avx2, avx512 or avx512bf16",
                "GRAFT_CPU_KERNELS is `avx512`, but this processor has `avx2` at most; it takes \
                 portable or avx2",
                "GRAFT_CPU_KERNELS is `avx2`, but this processor has `portable` at most; it takes \
                 portable",
            ]
        );
    }
}
