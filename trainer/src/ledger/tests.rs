use std::num::NonZeroUsize;
use std::sync::Arc;

use graft_adapters::{Full, LoraConfig, Method, Rank, Scaling, Size};
use graft_kernels::Precision;
use graft_model::{ProjectionKind, Site, presets};
use graft_recipes::{ActivationOffload, Checkpointing};

use super::*;
use crate::device::Device;
use crate::toy_method::Factors;
use graft_engine::optimizer::StateFormat;

/// Updates of rank 16 on every projection of Llama 3.2 1B, changed.
fn lora(change: impl FnOnce(&mut LoraConfig)) -> Arc<dyn Method> {
    let sites = Site::all(&presets::llama3_2_1b());
    let size = Size { rank: Rank(NonZeroUsize::new(16).unwrap()), alpha: 32.0 };
    let mut lora = LoraConfig::uniform(size, Scaling::Standard, 0.0, sites);
    change(&mut lora);
    Arc::new(lora)
}

/// Llama 3.2 1B in NF4, rank 16, four rows of 512 tokens.
fn asked() -> Asked {
    Asked {
        config: presets::llama3_2_1b(),
        one_table: true,
        method: lora(|_| ()),
        rank: Some(16),
        states: StateFormat::F32,
        stored: Some(Stored {
            projection: 562_500,
            table: 2_000_000,
            projections_are_private: false,
            tables_are_private: false,
            form: "nf4",
        }),
        units: vec![512; 4],
        targets: vec![512; 4],
        micro_batch_size: 2,
        accumulation: 2,
        per_visit: 1,
        checkpointing: Checkpointing::Block,
        offload: ActivationOffload::None,
        streams: false,
        device: Device::cpu(),
        precision: Precision::F32,
        masks: true,
        vocabulary: 128_256,
        threads: 2,
        steps: 10,
        samples: 4,
        tokens: 2_048,
        kept: [16_384, 0],
        embedded: 1 << 20,
        scoring: Scoring::default(),
        asks: false,
        keep: 3,
        merging: Merging::Nothing,
        model_bytes: 0,
        given: 0,
        models_given: 0,
        output_dir: "run".into(),
    }
}

fn of(ledger: &Ledger, name: &str) -> u64 {
    ledger.lines.iter().find(|line| line.name == name).map_or(0, |line| line.bytes)
}

#[test]
fn every_line_is_what_its_arithmetic_says() {
    let ledger = Ledger::for_run(&asked());
    // 16 blocks: q, o 2048·2048, k, v 2048·512, three of 2048·8192.
    let weights: u64 = 16 * (2 * 2_048 * 2_048 + 2 * 2_048 * 512 + 3 * 2_048 * 8_192);
    assert_eq!(of(&ledger, "frozen projections"), weights * 9 / 16);
    assert_eq!(of(&ledger, "embedding"), 128_256 * 2_048 * 2);
    let trained: u64 = 16 * 16 * (2 * 4_096 + 2 * 2_560 + 3 * 10_240);
    assert_eq!(of(&ledger, "trained values"), 4 * trained);
    assert_eq!(of(&ledger, "their gradient"), 4 * trained);
    assert_eq!(of(&ledger, "optimizer states"), 8 * trained);
    assert_eq!(of(&ledger, "block inputs"), 2 * 16 * 1_024 * 2_048 * 4);
    assert_eq!(of(&ledger, "checkpoints"), 4 * 16 * trained);
    let sum = |place| {
        let lines = ledger.lines.iter().filter(|line| line.place == place);
        lines.map(|line| line.bytes).sum::<u64>()
    };
    assert_eq!(ledger.anonymous(), sum(Medium::Anonymous));
    assert_eq!(ledger.resident(), sum(Medium::Anonymous) + sum(Medium::Mapped));
    assert_eq!(ledger.disk(), sum(Medium::Disk));
}

#[test]
fn what_a_recipe_asks_for_shows_in_its_line() {
    let base = Ledger::for_run(&asked());
    let with = |change: &dyn Fn(&mut Asked)| {
        let mut asked = asked();
        change(&mut asked);
        Ledger::for_run(&asked)
    };
    let short = with(&|a| a.states = StateFormat::Blockwise8);
    assert_eq!(of(&short, "optimizer states") * 4 / of(&base, "optimizer states"), 1);
    assert!(of(&short, "checkpoints") < of(&base, "checkpoints"));
    let visits = with(&|a| a.per_visit = 2);
    assert_eq!(of(&visits, "block inputs"), 2 * of(&base, "block inputs"));
    assert_eq!(of(&visits, "last block's tape"), 0);
    // There are no more rows than that.
    assert_eq!(with(&|a| a.per_visit = 9), visits);
    let selective = with(&|a| a.checkpointing = Checkpointing::Selective);
    let updates = 16 * 7 * 16 * 4;
    let products = 1_024 * (16 * (2 * 2_560 + 2 * 8_192) * 4 + updates);
    assert_eq!(of(&selective, "kept products"), products);
    assert_eq!(of(&selective, "block inputs"), of(&base, "block inputs"));
    // The head is the larger moment where a branch is small.
    let targets = |each| {
        with(&|a| {
            a.config.d_ff = 64;
            a.targets = vec![each; 4];
        })
    };
    assert!(targets(1).anonymous() < targets(512).anonymous());
    assert!(with(&|a| a.checkpointing = Checkpointing::None).anonymous() > base.anonymous());
    let private = with(&|a| {
        a.stored = a.stored.map(|stored| Stored { projections_are_private: true, ..stored });
    });
    let projections = of(&base, "frozen projections");
    assert_eq!(private.anonymous(), base.anonymous() + projections);
    assert_eq!(private.resident(), base.resident());
    let rows = Scoring { tokens: 100_000, targets: 100, ..Scoring::default() };
    let scored = with(&|a| a.scoring = rows);
    assert!(of(&scored, "scoring pass") > of(&base, "block inputs"));
    assert_eq!(of(&scored, "block inputs"), 0, "a step takes less than such a pass");
    let asks = Scoring { prompts: 48, prefill: 2_048, cached: 100_000, ..Scoring::default() };
    let asked_much = with(&|a| (a.scoring, a.asks) = (asks, true));
    assert_eq!(of(&asked_much, "keys and values"), 100_000 * 16 * 2 * 512 * 4);
    assert_eq!(of(&asked_much, "of the block at hand"), 100_000 * 2 * 512 * 4);
    assert_eq!(of(&asked_much, "tokenizer"), 128_256 * 520);
    let high = with(&|a| a.method = lora(|lora| lora.sites.retain(|site, _| site.layer >= 12)));
    assert_eq!(4 * of(&high, "block inputs"), of(&base, "block inputs"));
    let wide = 4 * crate::plan::parameters(&asked().config);
    let merged = with(&|a| (a.merging, a.model_bytes) = (Merging::Stored, wide));
    assert_eq!(merged.disk() - base.disk(), wide);
}

/// Sums of memory, with few targets, so that a branch is the larger moment, and of a pass that scores.
fn of_method(method: Arc<dyn Method>, precision: Precision) -> [u64; 4] {
    let base = Asked { method, precision, targets: vec![1; 4], ..asked() };
    let [block, selective, none] =
        [Checkpointing::Block, Checkpointing::Selective, Checkpointing::None].map(
            |checkpointing| Ledger::for_run(&Asked { checkpointing, ..base.clone() }).anonymous(),
        );
    let scoring = Scoring { tokens: 100_000, targets: 100, ..Scoring::default() };
    [block, selective, none, Ledger::for_run(&Asked { scoring, ..base }).anonymous()]
}

#[test]
fn what_a_method_takes_of_a_token_is_in_its_plan_under_every_checkpointing() {
    // Of Llama 3.2 1B, in f32: what all projections of a block give, gate and up alone, o and down alone.
    let (of_block, inner, ends) = (4 * (2 * 2_560 + 2 * 8_192 + 2_048), 4 * 16_384, 4 * 4_096);
    let moment = 2 * 4 * 8_192;
    // And what the allocator loses of it.
    let more = |bytes: u64| 1_024 * bytes * 13 / 12;
    for precision in [Precision::F32, Precision::Bf16] {
        let [silent, told] =
            [false, true].map(|tells| of_method(Arc::new(Factors { tells }), precision));
        let found: [u64; 4] = std::array::from_fn(|way| told[way] - silent[way]);
        let expected = [
            // The last block's, of which attention waits while the other is gone through.
            more(of_block + moment),
            more(16 * ends + inner + moment),
            more(16 * of_block + moment),
            100_000 * moment * 13 / 12,
        ];
        for (found, expected) in found.into_iter().zip(expected) {
            assert!(found.abs_diff(expected) <= 1, "{precision:?}: {found}, {expected}");
        }
    }
}

#[test]
fn low_rank_updates_and_every_weight_take_what_was_measured() {
    for (precision, lora_takes, full_takes) in [
        (
            Precision::F32,
            [783_925_632, 2_204_511_274, 3_322_293_290, 16_764_669_653],
            [21_838_868_352, 23_197_473_322, 24_360_693_632, 31_458_905_813],
        ),
        (
            Precision::Bf16,
            [673_999_914, 1_383_476_266, 2_087_769_813, 9_357_736_320],
            [21_747_117_952, 22_417_332_778, 23_144_345_472, 24_051_972_480],
        ),
    ] {
        assert_eq!(of_method(lora(|_| ()), precision), lora_takes, "lora, {precision:?}");
        assert_eq!(of_method(Arc::new(Full), precision), full_takes, "full, {precision:?}");
    }
}

#[test]
fn dropout_takes_a_bit_a_value_on_the_host_and_a_gradient_for_a_moment_on_a_gpu() {
    let with = |base: Asked, rate: f64, kinds: &[ProjectionKind]| {
        let method = lora(|lora| {
            lora.dropout = rate;
            lora.sites.retain(|site, _| kinds.contains(&site.kind));
        });
        Ledger::for_run(&Asked { method, ..base })
    };
    let all = ProjectionKind::ALL;
    let (o, down) = ([ProjectionKind::O], [ProjectionKind::Down]);
    let bits = |kinds: &[ProjectionKind]| {
        let [without, ledger] = [0.0, 0.05].map(|rate| with(asked(), rate, kinds));
        let bits = of(&ledger, "dropout's bits");
        // And what the allocator loses of them.
        let more = ledger.anonymous() - without.anonymous();
        assert!((bits..=bits + bits / 8).contains(&more), "{more} bytes more, {bits} of bits");
        assert_eq!(of(&without, "dropout's bits"), 0);
        bits
    };
    // Of 1,024 tokens, the last four inputs: down's and three that are narrow; only narrow or wide ones.
    assert_eq!(bits(&all), 1_024 * (8_192 + 3 * 2_048) / 8);
    assert_eq!(bits(&o), 1_024 * 4 * 2_048 / 8);
    assert_eq!(bits(&down), 1_024 * 4 * 8_192 / 8);
    let packed = |kinds: &[ProjectionKind]| {
        let ledger = with(Asked { masks: false, ..asked() }, 0.05, kinds);
        of(&ledger, "dropout's packed operand")
    };
    assert_eq!(packed(&all), 1_024 * 8_192 * 4);
    assert_eq!(packed(&o), 1_024 * 2_048 * 4);
    assert_eq!(of(&with(asked(), 0.05, &all), "dropout's packed operand"), 0);
    let branch = |rate, kinds: &[ProjectionKind]| {
        // A branch is the larger moment where few tokens are targets.
        let ledger = with(Asked { targets: vec![1; 4], ..on_gpu() }, rate, kinds);
        assert_eq!(of(&ledger, "dropout's bits"), 0);
        of(&ledger, "largest branch")
    };
    assert!(branch(0.0, &all) > 0);
    assert_eq!(branch(0.05, &all) - branch(0.0, &all), 1_024 * 8_192 * 4);
    assert_eq!(branch(0.05, &o), branch(0.0, &o));
}

#[test]
fn what_does_not_fit_is_refused_with_the_arithmetic_and_what_would() {
    let asked = asked();
    let ledger = Ledger::for_run(&asked);
    let needed = ledger.anonymous();
    let check = |memory, disk| ledger.check(&asked, &Available { memory, device: None, disk });
    assert_eq!(check(None, None), Ok(()));
    assert_eq!(check(Some(needed), Some(ledger.disk())), Ok(()));
    let close = check(Some(needed - 1), None).unwrap_err();
    assert_eq!((close.what, close.needed, close.available), ("memory", needed, needed - 1));
    let text = close.to_string();
    for part in ["block inputs", "2 · 16 blocks · 1,024 tokens · 2,048 · 4", "any of these fits:"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    for key in ["micro_batch_size=1", "optimizer=adamw_8bit", "max_seq_len=256", "rank=8"] {
        assert!(text.contains(key), "{key}:\n{text}");
    }
    let far = check(Some(needed / 4), None).unwrap_err().to_string();
    assert!(far.contains("together:") || far.contains("not even these fit:"), "{far}");
    let full = check(None, Some(0)).unwrap_err();
    assert_eq!((full.what, full.needed), ("disk", ledger.disk()));
    assert!(full.to_string().contains("checkpoint.keep"), "{full}");
}

#[test]
fn a_change_that_is_named_is_one_that_fits() {
    let asked = asked();
    let needed = Ledger::for_run(&asked).anonymous();
    for share in [95, 80, 60, 40] {
        let memory = needed * share / 100;
        let text = remedies::text(&asked, Medium::Anonymous, memory);
        let Some(list) = text.strip_prefix("any of these fits:") else { continue };
        for line in list.lines().filter(|line| line.contains("training.micro_batch_size=1")) {
            let mut smaller = asked.clone();
            smaller.micro_batch_size = 1;
            smaller.accumulation = 4;
            assert!(Ledger::for_run(&smaller).anonymous() <= memory, "{line}");
        }
    }
}

#[test]
fn a_merge_that_takes_most_is_named_as_what_to_leave_out() {
    // Little is trained, on short rows.
    let method = lora(|lora| lora.sites.retain(|site, _| site.layer == 15));
    let mut asked =
        Asked { method, units: vec![16; 4], targets: vec![1; 4], vocabulary: 2_000, ..asked() };
    (asked.merging, asked.model_bytes) = (Merging::Dequantised, 1 << 31);
    let ledger = Ledger::for_run(&asked);
    assert!(of(&ledger, "logits of both") > 0, "{ledger:?}");
    let text = remedies::text(&asked, Medium::Anonymous, ledger.anonymous() - 1);
    assert!(text.contains("finish.merge=false"), "{text}");
}

#[test]
fn auto_keeps_products_where_they_take_at_most_half_of_the_memory() {
    let mut selective = asked();
    selective.checkpointing = Checkpointing::Selective;
    let taken = Ledger::for_run(&selective).anonymous();
    let settled = |memory: Option<u64>, checkpointing| {
        let mut asked = Asked { checkpointing, ..asked() };
        Ledger::settle(&mut asked, &Available { memory, device: None, disk: None });
        asked.checkpointing
    };
    let auto = Checkpointing::Auto;
    assert_eq!(settled(Some(2 * taken), auto), Checkpointing::Selective);
    assert_eq!(settled(Some(2 * taken - 2), auto), Checkpointing::Block);
    assert_eq!(settled(None, auto), Checkpointing::Selective);
    // Whoever names one gets it.
    assert_eq!(settled(Some(0), Checkpointing::Selective), Checkpointing::Selective);
    assert_eq!(settled(None, Checkpointing::None), Checkpointing::None);
}

/// The same on a GPU.
fn on_gpu() -> Asked {
    Asked { device: Device::made_up(None, true), precision: Precision::Bf16, ..asked() }
}

#[test]
fn a_gpu_holds_what_it_computes_with_and_the_host_the_rest() {
    let (host, gpu) = (Ledger::for_run(&asked()), Ledger::for_run(&on_gpu()));
    let names = |ledger: &Ledger, place| -> Vec<&str> {
        let lines = ledger.lines.iter().filter(|line| line.place == place);
        lines.map(|line| line.name).collect()
    };
    assert_eq!(host.device(), 0);
    assert_eq!(
        names(&gpu, Medium::Device),
        [
            "frozen projections",
            "embedding",
            "norms",
            "trained values",
            "optimizer states",
            "their gradient",
            "residual stream",
            "positions",
            "block inputs",
            "decoded matrix",
            "last block's tape",
            "logits",
        ]
    );
    // The host's largest moment is another one: while rows are read, and the tokenizer with them.
    assert_eq!(
        names(&gpu, Medium::Anonymous),
        ["data", "program", "tokenizer", "gaps between blocks"]
    );
    // What becomes of a gradient takes as much there as it does on the host.
    for line in ["their gradient", "optimizer states"] {
        assert_eq!(of(&gpu, line), of(&host, line), "{line}");
    }
    assert_eq!(
        names(&gpu, Medium::Mapped),
        ["frozen projections", "embedding", "the program's file"]
    );
    assert_eq!(of(&gpu, "decoded matrix"), 2_048 * 8_192 * 2);
    let in_16_bits = asked().stored.map(|stored| Stored { projection: 2_000_000, ..stored });
    let as_it_is = Ledger::for_run(&Asked { stored: in_16_bits, ..on_gpu() });
    assert_eq!(of(&as_it_is, "decoded matrix"), 0);
    assert_eq!(of(&gpu, "block inputs"), of(&host, "block inputs"));
    assert!(gpu.anonymous() < host.anonymous());
    let sum = |place| {
        let lines = gpu.lines.iter().filter(|line| line.place == place);
        lines.map(|line| line.bytes).sum::<u64>()
    };
    assert_eq!(gpu.device(), sum(Medium::Device));
    // Weights that are quantised on the way never stay on the host.
    let stored = asked().stored.map(|stored| Stored { projections_are_private: true, ..stored });
    let quantised = Ledger::for_run(&Asked { stored, ..on_gpu() });
    assert_eq!((quantised.device(), quantised.anonymous()), (gpu.device(), gpu.anonymous()));
    assert_eq!(names(&quantised, Medium::Mapped), ["embedding", "the program's file"]);
    // The larger of a step and a scoring pass counts in either memory by itself.
    let scoring = Scoring { tokens: 100_000, ..Scoring::default() };
    let scored = Ledger::for_run(&Asked { scoring, ..on_gpu() });
    assert_eq!(of(&scored, "optimizer states"), of(&gpu, "optimizer states"));
    let of_a_step = ["their gradient", "block inputs"].map(|line| of(&scored, line));
    assert_eq!((of_a_step, of(&gpu, "scoring pass")), ([0, 0], 0));
    assert!(scored.device() > gpu.device());
}

#[test]
fn a_gpu_that_is_too_small_is_refused_with_what_fits_into_it() {
    let asked = on_gpu();
    let ledger = Ledger::for_run(&asked);
    let needed = ledger.device();
    let check = |device| {
        let available = Available { memory: Some(ledger.anonymous()), device, disk: None };
        ledger.check(&asked, &available)
    };
    assert_eq!((check(None), check(Some(needed))), (Ok(()), Ok(())));
    let refused = check(Some(needed - 1)).unwrap_err();
    assert_eq!((refused.what, refused.needed), ("device memory", needed));
    let text = refused.to_string();
    for part in [
        "of device memory, and",
        "available on wgpu:1 (RTX):",
        "block inputs",
        "2,048 · 8,192 · 2",
        "any of these fits:",
        "training.micro_batch_size=1",
        "data.max_seq_len=256",
        "training.optimizer=adamw_8bit",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let stored = Some(Stored { projection: 2_000_000, form: "16 bits", ..asked.stored.unwrap() });
    let wide = Asked { stored, checkpointing: Checkpointing::Selective, ..on_gpu() };
    let ledger = Ledger::for_run(&wide);
    let available = Available { device: Some(ledger.device() - 1), ..Available::default() };
    let text = ledger.check(&wide, &available).unwrap_err().to_string();
    assert!(text.contains("training.checkpointing=block"), "{text}");
    let available = Available { device: Some(1), ..Available::default() };
    let text = ledger.check(&wide, &available).unwrap_err().to_string();
    assert!(text.contains("not even these fit:") && text.contains("quantization=nf4"), "{text}");
}

#[test]
fn auto_keeps_products_on_a_gpu_where_they_take_at_most_half_of_its_memory() {
    let selective = Asked { checkpointing: Checkpointing::Selective, ..on_gpu() };
    let taken = Ledger::for_run(&selective).device();
    let settled = |device| {
        let mut asked = Asked { checkpointing: Checkpointing::Auto, ..on_gpu() };
        Ledger::settle(&mut asked, &Available { device: Some(device), ..Available::default() });
        asked.checkpointing
    };
    assert_eq!(settled(2 * taken), Checkpointing::Selective);
    assert_eq!(settled(2 * taken - 2), Checkpointing::Block);
}

#[test]
fn block_inputs_are_counted_where_they_wait() {
    for (offload, place) in [
        (ActivationOffload::None, Medium::Device),
        (ActivationOffload::Host, Medium::Anonymous),
        (ActivationOffload::Disk, Medium::Disk),
    ] {
        let ledger = Ledger::for_run(&Asked { offload, ..on_gpu() });
        let line = ledger.lines.iter().find(|line| line.name == "block inputs").unwrap();
        assert_eq!((line.place, line.bytes), (place, 2 * 16 * 1_024 * 2_048 * 4));
    }
}

#[test]
fn a_model_beyond_the_gpu_streams_its_projections_and_only_then() {
    let settled = |device: u64| {
        let mut asked = on_gpu();
        let there = Available { memory: None, device: Some(device), disk: None };
        Ledger::settle(&mut asked, &there);
        asked.streams
    };
    let resident = Ledger::for_run(&on_gpu()).device();
    let streaming = Ledger::for_run(&Asked { streams: true, ..on_gpu() }).device();
    // Of the blocks' 0.55 GB two blocks are left.
    assert!(streaming + 400_000_000 < resident, "{streaming}, {resident}");
    assert!(!settled(resident));
    assert!(settled(resident - 1) && settled(streaming));
    let weights = 2 * (2 * 2_048 * 2_048 + 2 * 2_048 * 512 + 3 * 2_048 * 8_192);
    let streams = Ledger::for_run(&Asked { streams: true, ..on_gpu() });
    for name in ["projections on their way", "copies on their way"] {
        assert_eq!(of(&streams, name), weights * 9 / 16, "{name}");
    }
    // Where even that does not fit, the refusal shows what all of it would take.
    assert!(!settled(streaming - 1));
}
