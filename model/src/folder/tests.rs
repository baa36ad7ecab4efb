//! What a folder gives, and what it refuses.
#![expect(clippy::disallowed_methods, reason = "the tests prepare plain files")]

use super::*;

#[test]
fn files_read_and_map_the_same() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("b.json"), "{}").unwrap();
    fs::write(root.path().join("a.empty"), "").unwrap();
    fs::create_dir(root.path().join("deeper")).unwrap();
    let folder = ModelFolder::at(root.path()).unwrap();
    assert_eq!(folder.names().unwrap(), ["a.empty", "b.json"]);
    assert_eq!(folder.bytes("b.json").unwrap().unwrap(), "{}");
    assert_eq!(folder.map("b.json").unwrap(), "{}");
    assert_eq!(folder.map("a.empty").unwrap(), "");
    assert_eq!(folder.bytes("c").unwrap(), None);
    assert!(folder.contains("b.json") && !folder.contains("deeper"));
}

#[test]
fn a_map_outlives_the_replacement_of_its_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a");
    graft_files::atomic::write_bytes(&path, b"old").unwrap();
    let folder = ModelFolder::at(root.path()).unwrap();
    let map = folder.map("a").unwrap();
    graft_files::atomic::write_bytes(&path, b"new").unwrap();
    assert_eq!((map.as_ref(), folder.map("a").unwrap().as_ref()), (&b"old"[..], &b"new"[..]));
}

#[test]
fn what_is_published_says_nothing_of_where_a_model_lay() {
    let root = tempfile::tempdir().unwrap();
    let cached = "hub/models--org--Llama-3.1-8B/snapshots/0e9e39f249a1";
    for (path, expected) in [
        ("secret/Llama-3.1-8B", "Llama-3.1-8B"),
        ("secret/deeper/../Llama-3.1-8B/", "Llama-3.1-8B"),
        (cached, "org/Llama-3.1-8B"),
    ] {
        fs::create_dir_all(root.path().join("secret/deeper")).unwrap();
        fs::create_dir_all(root.path().join(path)).unwrap();
        let folder = ModelFolder::at(&root.path().join(path)).unwrap();
        assert_eq!(folder.published_name(), expected);
    }
    let builtin = ModelFolder::open("builtin:quickstart").unwrap();
    assert_eq!(builtin.published_name(), "builtin:quickstart");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder = ModelFolder::at(root.path()).unwrap();
    for name in ["../x", "/etc/passwd", "a/b", "..", "", "a\\b"] {
        assert!(matches!(folder.map(name), Err(Error::UnsafeName { .. })), "{name}");
        assert!(matches!(folder.bytes(name), Err(Error::UnsafeName { .. })), "{name}");
        assert!(!folder.contains(name));
    }
}

#[test]
fn what_is_missing_is_said_with_the_way_to_get_it() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let folder = ModelFolder::at(root.path()).unwrap();
    let texts = [
        ModelFolder::open("meta-llama/Llama-3.1-8B").unwrap_err().to_string(),
        ModelFolder::open("builtin:quick").unwrap_err().to_string(),
        ModelFolder::open(root.path().join("file").to_str().unwrap()).unwrap_err().to_string(),
        folder.required("config.json").unwrap_err().to_string(),
        folder.map("../x").unwrap_err().to_string(),
    ];
    let shown = texts.join("\n").replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(shown, @r#"
    there is no model folder `meta-llama/Llama-3.1-8B`. Graft downloads nothing: fetch the model yourself, for example with `hf download meta-llama/Llama-3.1-8B --exclude "original/*" --local-dir meta-llama/Llama-3.1-8B`, and copy it there, or use `builtin:quickstart`
    `builtin:quick` is not in this program; built in: builtin:quickstart
    `ROOT/file` is a file; a model is the folder that holds config.json, or a GGUF file
    `config.json` is not in the model folder `ROOT`. Graft downloads nothing: copy the file there from where the model comes from
    `../x` is refused: a file of the model folder `ROOT` is a name without a path
    "#);
}

#[test]
fn weights_of_another_form_are_called_by_their_name() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("model.gguf");
    fs::write(&file, "").unwrap();
    fs::write(root.path().join("consolidated.00.pth"), "").unwrap();
    let folder = ModelFolder::at(root.path()).unwrap();
    let texts = [
        ModelFolder::at(&file).unwrap_err().to_string(),
        folder.without_weights("model.safetensors").to_string(),
    ];
    let shown = texts.join("\n").replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(shown, @"
    `ROOT/model.gguf` cannot be read: it begins with ``, not with `GGUF`: it is no GGUF file, or an empty one
    the model folder `ROOT` has its weights as `consolidated.00.pth`, a file of PyTorch's (a pickle, which can run programs); in a folder Graft reads safetensors: fetch the release's `*.safetensors`, or convert the weights
    ");
}

#[test]
fn a_folder_in_place_of_a_file_is_called_that() {
    let root = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "config.json"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    let folder = ModelFolder::at(root.path()).unwrap();
    let weights = folder.without_weights("model.safetensors` or `model.safetensors.index.json");
    let texts = [weights.to_string(), folder.missing("config.json").to_string()];
    let shown = texts.join("\n").replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(shown, @"
    `ROOT/model.safetensors` is a folder, and only plain files are read
    `ROOT/config.json` is a folder, and only plain files are read
    ");
}

#[test]
#[cfg(unix)]
fn links_that_lead_nowhere_are_called_that() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    std::os::unix::fs::symlink("../../blobs/0a1b", at("config.json")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("model")).unwrap();
    let folder = ModelFolder::at(root.path()).unwrap();
    let texts = [
        folder.required("config.json").unwrap_err().to_string(),
        ModelFolder::at(&at("model")).unwrap_err().to_string(),
    ];
    let shown = texts.join("\n").replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(shown, @"
    `ROOT/config.json` is a link to `../../blobs/0a1b`, which is not there: copy the files that the links of this folder lead to, too (`cp -rL` does)
    `ROOT/model` is a link to `nowhere`, which is not there: copy the files that the links of this folder lead to, too (`cp -rL` does)
    ");
}

#[test]
fn embedded_models_open_by_name_and_lie_aligned() {
    for builtin in &BUILTINS {
        let folder = ModelFolder::open(&format!("builtin:{}", builtin.name)).unwrap();
        for name in folder.names().unwrap() {
            let bytes = folder.map(&name).unwrap();
            assert_eq!(bytes.as_ptr().align_offset(64), 0, "{name}");
            assert!(folder.contains(&name));
        }
    }
}
