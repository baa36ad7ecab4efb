//! What stands where a recipe is meant: only plain files of a recipe's size are read, and at once.
#![expect(clippy::unwrap_used, reason = "a failing fixture is a failing test")]
#![expect(clippy::disallowed_methods, reason = "fixtures in a temporary folder")]

use std::path::Path;

use graft_recipes::load;

fn refused(path: &Path) -> String {
    load(path.to_str().unwrap(), &[]).unwrap_err().to_string()
}

#[cfg(unix)]
#[test]
fn pipes_devices_folders_and_endless_files_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let made = std::process::Command::new("mkfifo").arg(path("pipe.yaml")).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(path("folder.yaml")).unwrap();
    std::fs::File::create(path("sparse.yaml")).unwrap().set_len(100 << 30).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("zero.yaml")).unwrap();
    std::os::unix::fs::symlink(path("loop.yaml"), path("loop.yaml")).unwrap();
    let names = ["pipe", "folder", "sparse", "zero", "loop"];
    let shown = names.map(|name| {
        let direct = refused(&path(&format!("{name}.yaml")));
        let through = path(&format!("extends-{name}.yaml"));
        std::fs::write(&through, format!("extends: {name}.yaml\n")).unwrap();
        let shown = refused(&through);
        let message = direct.lines().nth(1).unwrap();
        assert!(shown.contains(message) && shown.contains("extends-"), "{shown}");
        direct
    });
    let shown = shown.join("\n").replace(&root.path().display().to_string(), "ROOT");
    insta::assert_snapshot!(shown, @r"
    recipe `ROOT/pipe.yaml` has a problem:
    cannot read `ROOT/pipe.yaml`: it is a pipe, and only plain files are read
    recipe `ROOT/folder.yaml` has a problem:
    cannot read `ROOT/folder.yaml`: it is a folder, and only plain files are read
    recipe `ROOT/sparse.yaml` has a problem:
    cannot read `ROOT/sparse.yaml`: it has 107374182400 bytes; allowed: at most 1048576
    recipe `ROOT/zero.yaml` has a problem:
    cannot read `ROOT/zero.yaml`: it is a device, and only plain files are read
    recipe `ROOT/loop.yaml` has a problem:
    cannot read `ROOT/loop.yaml`: Too many levels of symbolic links (os error 40)
    ");
}

#[test]
fn a_tower_of_recipes_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for level in 0..40 {
        let path = root.path().join(format!("r{level}.yaml"));
        std::fs::write(path, format!("extends: r{}.yaml\n", level + 1)).unwrap();
    }
    let shown = refused(&root.path().join("r0.yaml"));
    assert!(shown.contains("extends: more than 16 recipes extend each other"), "{shown}");
}

#[test]
fn a_file_gives_its_run_a_name_that_is_no_path() {
    let root = tempfile::tempdir().unwrap();
    for (file, name) in [
        ("mine.yaml", "mine"),
        ("my recipe.v2.yaml", "my-recipe.v2"),
        ("...yaml", "recipe"),
        ("-x.yaml", "x"),
        ("żółw.yaml", "żółw"),
    ] {
        let path = root.path().join(file);
        std::fs::write(&path, "extends: quickstart\n").unwrap();
        let recipe = load(path.to_str().unwrap(), &[]).unwrap();
        assert_eq!(recipe.name, name, "{file}");
        assert_eq!(recipe.output_dir, Path::new("runs").join(name));
    }
}
