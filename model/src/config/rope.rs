//! The rotary part of a config.json in its three spellings: `rope_theta` + `rope_scaling` with
//! `rope_type` (transformers 4.43 on) or `type` (before), and the nested `rope_parameters` (5 on).

use serde_json::{Map, Value, json};

use super::reader::{Reader, shown};

/// Llama 3.1's stretching of low rotary frequencies (`rope_type: llama3`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Low frequencies are divided by this, at least 1.
    pub factor: f64,
    /// Wavelengths above `original / low_freq_factor` are divided fully.
    pub low_freq_factor: f64,
    /// Wavelengths below `original / high_freq_factor` stay; above `low_freq_factor`.
    pub high_freq_factor: f64,
    /// Context length before the stretching.
    pub original_max_position_embeddings: usize,
}

impl Llama3Scaling {
    pub(crate) fn to_json(self) -> Value {
        let Self { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } =
            self;
        json!({
            "factor": factor,
            "high_freq_factor": high_freq_factor,
            "low_freq_factor": low_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
            "rope_type": "llama3",
        })
    }
}

pub(super) struct Rope {
    pub(super) theta: f64,
    pub(super) scaling: Option<Llama3Scaling>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Rope {
    let parameters = object(reader, "rope_parameters");
    let scaling = object(reader, "rope_scaling");
    let nested_theta = parameters.filter(|object| object.contains_key("rope_theta"));
    let theta = match nested_theta {
        Some(object) => {
            let theta = reader.nested("rope_parameters", object, |r| r.positive("rope_theta"));
            if let Some(outer) = reader.value("rope_theta").and_then(Value::as_f64)
                && outer.to_bits() != theta.to_bits()
            {
                reader.problem(
                    "rope_theta",
                    outer,
                    format!("rope_parameters.rope_theta = {theta}"),
                );
            }
            theta
        }
        None => reader.positive("rope_theta"),
    };
    let new = parameters.map(|object| {
        reader.nested("rope_parameters", object, |inner| read_scaling(inner, Spelling::Parameters))
    });
    let old = scaling.map(|object| {
        reader.nested("rope_scaling", object, |inner| read_scaling(inner, Spelling::Scaling))
    });
    if let (Some(new), Some(old)) = (new, old)
        && new != old
    {
        let found = scaling.map_or_else(String::new, |o| shown(&Value::Object(o.clone())));
        reader.problem("rope_scaling", found, "the same as rope_parameters, or absent");
    }
    Rope { theta, scaling: new.or(old).flatten() }
}

fn object<'a>(reader: &mut Reader<'a>, key: &str) -> Option<&'a Map<String, Value>> {
    let value = reader.value(key)?;
    if value.as_object().is_none() {
        reader.problem(key, shown(value), "an object `{…}` or null");
    }
    value.as_object()
}

#[derive(PartialEq)]
enum Spelling {
    Parameters,
    Scaling,
}

fn read_scaling(reader: &mut Reader<'_>, spelling: Spelling) -> Option<Llama3Scaling> {
    const EXPECTED: &str = "\"llama3\" or \"default\"";
    if let Some(partial) = reader.value("partial_rotary_factor").cloned()
        && partial.as_f64() != Some(1.0)
    {
        reader.problem("partial_rotary_factor", shown(&partial), "1");
    }
    let newer = reader.text("rope_type");
    let older = reader.text("type");
    if let (Some(newer), Some(older)) = (newer, older)
        && newer != older
    {
        reader.problem("type", format!("{older:?}"), format!("rope_type = {newer:?}"));
    }
    match newer.or(older) {
        Some("llama3") => Some(read_llama3(reader)),
        Some("default") => None,
        // Transformers 5 leaves the type out of plain parameters; a scaling without one is unclear.
        None if spelling == Spelling::Parameters && reader.value("factor").is_none() => None,
        None => {
            reader.problem("rope_type", "missing", EXPECTED);
            None
        }
        Some(other) => {
            reader.problem("rope_type", format!("{other:?}"), EXPECTED);
            None
        }
    }
}

fn read_llama3(reader: &mut Reader<'_>) -> Llama3Scaling {
    let scaling = Llama3Scaling {
        factor: reader.positive("factor"),
        low_freq_factor: reader.positive("low_freq_factor"),
        high_freq_factor: reader.positive("high_freq_factor"),
        original_max_position_embeddings: reader.size("original_max_position_embeddings", None),
    };
    if scaling.factor < 1.0 {
        reader.problem("factor", scaling.factor, "at least 1");
    }
    if scaling.high_freq_factor <= scaling.low_freq_factor
        && reader.value("low_freq_factor").is_some()
        && reader.value("high_freq_factor").is_some()
    {
        let expected = format!("above low_freq_factor = {}", scaling.low_freq_factor);
        reader.problem("high_freq_factor", scaling.high_freq_factor, expected);
    }
    scaling
}
