//! `graft doctor`: what this machine offers to a run.

use std::fmt::Write as _;

use graft_files::disk;
use graft_kernels::Precision;
use graft_kernels::flex::isa::Isa;
use serde_json::{Value, json};

use crate::cli::recipe_args::DoctorArgs;
use crate::cli::{Globals, page};
use crate::device::{self, Api, Device};
use crate::machine::{Memory, Processor, huge_pages};
use graft_recipes::ComputeDtype;

/// Prints it. A machine that offers little is no failure.
///
/// # Errors
/// The level of kernels, or the device, asked for cannot be had; stdout is closed.
pub fn run(globals: &Globals, args: &DoctorArgs) -> anyhow::Result<()> {
    let found = Found::of_this_machine(globals)?;
    if args.json {
        return Ok(page::print_json(&found.json())?);
    }
    Ok(page::print(&found.text())?)
}

/// What was found.
struct Found {
    processor: Processor,
    /// Threads that a run would use.
    threads: usize,
    /// What the processor has, and what the kernels use of it.
    isa: [Isa; 2],
    memory: Memory,
    huge_pages: Option<String>,
    /// The current folder, and what is free on its disk.
    folder: String,
    free_bytes: Option<u64>,
    /// What `--device` asks for, and what that is here.
    asked: String,
    device: Device,
    devices: Vec<ListedDevice>,
    /// For each kind of device that cannot be used, why.
    missing: Vec<(Api, String)>,
}

/// A place where tensors can live.
struct ListedDevice {
    /// As `--device` takes it.
    device: String,
    found: device::Found,
}

impl Found {
    fn of_this_machine(globals: &Globals) -> anyhow::Result<Self> {
        let processor = Processor::of_this_machine();
        let memory = Memory::of_this_machine();
        let (mut devices, mut missing) = (Vec::new(), Vec::new());
        for api in Api::ALL {
            let named = |mut found: device::Found| {
                let device = match api {
                    Api::Cpu => {
                        found.memory_bytes = memory.total_bytes;
                        api.name().to_owned()
                    }
                    Api::Wgpu | Api::Cuda => format!("{}:{}", api.name(), found.index),
                };
                ListedDevice { device, found }
            };
            match device::found(api) {
                Ok(found) => devices.extend(found.into_iter().map(named)),
                Err(reason) => missing.push((api, reason)),
            }
        }
        Ok(Self {
            threads: globals.threads.map_or(processor.threads, std::num::NonZero::get),
            isa: [Isa::of_processor(), Isa::in_use()?],
            memory,
            huge_pages: huge_pages(),
            folder: std::env::current_dir()
                .map_or_else(|_| ".".into(), |dir| dir.display().to_string()),
            free_bytes: disk::free_bytes(".").ok(),
            asked: globals.device.to_string(),
            device: globals.device.open()?,
            devices,
            missing,
            processor,
        })
    }

    fn text(&self) -> String {
        let Self { processor, threads, isa: [has, uses], memory, folder, device, .. } = self;
        let size = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), page::bytes);
        let cores = processor.cores.map_or(String::new(), |cores| format!("{cores} cores, "));
        let name = processor.name.as_deref().unwrap_or("unknown");
        let limit = memory.limit_bytes;
        let limit = limit.map_or(String::new(), |limit| {
            format!("; this process may hold {} (cgroup)", page::bytes(limit))
        });
        let pages = self
            .huge_pages
            .as_ref()
            .map_or(String::new(), |given| format!("; huge pages: {given}"));
        let rows = [
            (
                "graft",
                format!("{}, on burn {}", env!("CARGO_PKG_VERSION"), graft_kernels::BURN_VERSION),
            ),
            ("system", format!("{} {}", std::env::consts::OS, processor.architecture)),
            ("processor", format!("{name}: {cores}{} threads, {threads} used", processor.threads)),
            ("instructions", format!("{}; kernels use {}", has.name(), uses.name())),
            ("bf16 products", uses.product(Precision::Bf16).to_owned()),
            ("f32 products", uses.product(Precision::F32).to_owned()),
            ("device", format!("{} is {}", self.asked, device.name())),
            ("compute_dtype", format!("auto is {}", device.precision(ComputeDtype::Auto).name())),
            (
                "memory",
                format!(
                    "{}, {} available{limit}",
                    size(memory.total_bytes),
                    size(memory.available_bytes)
                ),
            ),
            ("pages", format!("{}{pages}", size(memory.page_bytes))),
            ("disk", format!("{} free in {folder}", size(self.free_bytes))),
        ];
        let mut text = page::table(&rows);
        text.push_str("\ndevices\n");
        let width = self.devices.iter().map(|place| place.device.len()).max().unwrap_or(0);
        for ListedDevice { device, found } in &self.devices {
            let played = if found.software { ", played by the processor" } else { "" };
            let (memory, types) = (size(found.memory_bytes), found.dtypes().join(", "));
            let _ = writeln!(
                text,
                "  {device:<width$}  {}{played}; {memory}; {types}",
                found.full_name()
            );
        }
        for note in self.notes() {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    fn json(&self) -> Value {
        let Self { processor, threads, isa: [has, uses], memory, .. } = self;
        let devices: Vec<Value> = self
            .devices
            .iter()
            .map(|ListedDevice { device, found }| {
                json!({
                    "device": device,
                    "name": found.full_name(),
                    "software": found.software,
                    "memory_bytes": found.memory_bytes,
                    "dtypes": found.dtypes(),
                })
            })
            .collect();
        let missing: Vec<Value> = self
            .missing
            .iter()
            .map(|(api, reason)| json!({"device": api.name(), "reason": reason}))
            .collect();
        json!({
            "versions": {"graft": env!("CARGO_PKG_VERSION"), "burn": graft_kernels::BURN_VERSION},
            "system": std::env::consts::OS,
            "processor": processor,
            "threads": threads,
            "kernels": {
                "processor": has.name(),
                "used": uses.name(),
                "variable": Isa::VARIABLE,
                "bf16": uses.product(Precision::Bf16),
                "f32": uses.product(Precision::F32),
            },
            "device": self.device.name(),
            "compute_dtype": self.device.precision(ComputeDtype::Auto).name(),
            "memory": memory,
            "huge_pages": self.huge_pages,
            "disk": {"path": self.folder, "free_bytes": self.free_bytes},
            "devices": devices,
            "missing": missing,
            "notes": self.notes(),
        })
    }

    /// Sentences about what is missing, and about what was asked for.
    fn notes(&self) -> Vec<String> {
        let [has, uses] = self.isa;
        let mut notes = Vec::new();
        if let Some(lacking) = has.lacking() {
            notes.push(lacking.to_owned());
        }
        if uses < has {
            notes.push(format!(
                "{} lowers the kernels from {} to {}.",
                Isa::VARIABLE,
                has.name(),
                uses.name()
            ));
        }
        if [Api::Wgpu, Api::Cuda].iter().any(|api| api.is_built()) {
            let missing = self.missing.iter();
            notes.extend(
                missing.map(|(api, reason)| {
                    format!("{}: {}.", api.name(), reason.trim_end_matches('.'))
                }),
            );
        } else {
            notes.push(
                "This build has no GPU support: everything runs on the CPU. \
                 `cargo build --release --features wgpu` builds one for Vulkan, Metal and \
                 Direct3D 12, `--features cuda` one for NVIDIA."
                    .to_owned(),
            );
        }
        notes
    }
}
