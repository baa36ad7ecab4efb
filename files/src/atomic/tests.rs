//! Old or new content, never a part, and nothing left lying about.

use super::temporary::*;
use super::*;
use crate::disk::{free_bytes, require_free, try_writing};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    write_bytes(&path, b"old").unwrap();
    write_bytes(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["a.json"]);
}

#[test]
fn an_error_while_writing_leaves_the_old_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    write_bytes(&path, b"old").unwrap();
    let result = write_file(&path, |writer| {
        writer.write_all(&vec![1; 3 << 20])?;
        Err(io::Error::other("full"))
    });
    assert_eq!(result.unwrap_err().to_string(), "full");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["a.json"]);
}

#[test]
fn a_folder_is_replaced_whole_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("step-000100");
    let build = |text: &'static str| {
        move |folder: &Path| {
            fs::create_dir(folder.join("sub"))?;
            fs::write(folder.join("sub").join(text), text)
        }
    };
    replace_folder(&target, build("one")).unwrap();
    replace_folder(&target, build("two")).unwrap();
    assert_eq!(names(&target.join("sub")), ["two"]);
    let failed = replace_folder(&target, |folder| {
        fs::write(folder.join("half"), "half")?;
        Err(io::Error::other("full"))
    });
    assert!(failed.is_err());
    assert_eq!(names(&target), ["sub"]);
    assert_eq!(names(root.path()), ["step-000100"]);
}

#[test]
fn leftovers_of_killed_writers_go_and_those_of_living_ones_stay() {
    let root = tempfile::tempdir().unwrap();
    let left = |number| root.path().join(marked(OsStr::new("a"), TEMPORARY, number));
    fs::create_dir(left("1-0")).unwrap();
    fs::write(left("1-0").join("x"), "x").unwrap();
    fs::write(left("2-7"), "x").unwrap();
    // Whoever calls a file of theirs so has no mark.
    for mine in [".a.tmp-notes", ".a.tmp-99999-1", ".a.tmp-1-0-00000000", ".a.old-1-0"] {
        fs::write(root.path().join(mine), "x").unwrap();
    }
    let living = Temporary::file(root.path(), OsStr::new("a")).unwrap();
    write_bytes(root.path().join("a"), b"a").unwrap();
    assert!(living.path.exists());
    drop(living);
    let living = Temporary::file(root.path(), OsStr::new("a")).unwrap();
    fs::write(left("2-7"), "x").unwrap();
    remove_leftovers_in(root.path());
    assert!(living.path.exists() && !left("2-7").exists());
    // Who is asked for another name takes them away, too.
    fs::write(left("3-1"), "x").unwrap();
    create_file(root.path().join("b"), |_| io::Result::Ok(())).unwrap();
    assert!(living.path.exists() && !left("3-1").exists());
    fs::write(left("3-1"), "x").unwrap();
    create_folder(root.path().join("c"), |_| io::Result::Ok(())).unwrap();
    assert!(living.path.exists() && !left("3-1").exists());
    fs::remove_file(root.path().join("b")).unwrap();
    fs::remove_dir(root.path().join("c")).unwrap();
    drop(living);
    let mine = [".a.old-1-0", ".a.tmp-1-0-00000000", ".a.tmp-99999-1", ".a.tmp-notes"];
    assert_eq!(names(root.path()), [&mine[..], &["a"]].concat());
}

#[test]
fn errors_name_the_target() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("none").join("a.json");
    let error = write_bytes(&path, b"a").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("none/a.json`"), "{error}");
    write_bytes(root.path().join("file"), b"a").unwrap();
    let error = replace_folder(root.path().join("file"), |_| io::Result::Ok(())).unwrap_err();
    assert!(error.to_string().ends_with("file`: it exists and is not a folder"), "{error}");
    assert!(write_bytes("/", b"a").is_err());
}

#[test]
fn free_space_is_asked_of_the_nearest_existing_folder() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("a").join("b");
    assert!(free_bytes(&deep).unwrap() > 0);
    require_free(&deep, 1).unwrap();
    let error = require_free(&deep, u64::MAX).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn what_is_created_takes_nobodys_place() {
    let root = tempfile::tempdir().unwrap();
    let (file, folder) = (root.path().join("a.json"), root.path().join("out"));
    let put = |writer: &mut dyn Write| writer.write_all(b"new");
    let build = |folder: &Path| fs::write(folder.join("new"), "new");
    create_file(&file, put).unwrap();
    fs::create_dir(&folder).unwrap();
    create_folder(&folder, build).unwrap();
    assert_eq!(
        (fs::read(&file).unwrap(), names(&folder)),
        (b"new".to_vec(), vec!["new".to_owned()])
    );
    // What comes while the work is done stays, too.
    let (late, late_folder) = (root.path().join("late"), root.path().join("late-folder"));
    let error = create_file(&late, |writer| {
        fs::write(&late, "mine")?;
        put(writer)
    });
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let error = create_folder(&late_folder, |temporary| {
        fs::create_dir(&late_folder)?;
        fs::write(late_folder.join("mine"), "mine")?;
        build(temporary)
    });
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(
        (fs::read(&late).unwrap(), names(&late_folder)),
        (b"mine".to_vec(), vec!["mine".to_owned()])
    );
    assert_eq!(names(root.path()), ["a.json", "late", "late-folder", "out"]);
}

#[test]
fn without_exchange_a_kill_between_two_renames_loses_neither_folder() {
    fn unsupported(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("a");
    replace_folder(&target, |folder| fs::write(folder.join("old"), "")).unwrap();
    let mut temporary = Temporary::folder(root.path(), OsStr::new("a")).unwrap();
    fs::write(temporary.path.join("new"), "").unwrap();
    let beside = aside(&temporary.path, &target);
    let old = put_in_place(&temporary.path, &target, &beside, unsupported).unwrap();
    assert_eq!(old.as_ref(), Some(&beside));
    temporary.path = beside;
    assert_eq!(
        (names(&target), names(&temporary.path)),
        (vec!["new".to_owned()], vec!["old".to_owned()])
    );
    drop(temporary);
    assert_eq!(names(root.path()), ["a"]);
    // Killed after the first rename: whoever comes next finds the old folder in its place.
    let temporary = Temporary::folder(root.path(), OsStr::new("a")).unwrap();
    fs::rename(&target, aside(&temporary.path, &target)).unwrap();
    let failed = replace_folder(&target, |_| Err(io::Error::other("full")));
    assert!(failed.is_err());
    assert_eq!(names(&target), ["new"]);
    drop(temporary);
    assert_eq!(names(root.path()), ["a"]);
}

#[test]
fn what_a_file_was_can_be_taken_when_it_is_exchanged() {
    let root = tempfile::tempdir().unwrap();
    let [target, kept] = ["a", "kept"].map(|name| root.path().join(name));
    let nothing = |_: &Path| -> io::Result<()> { panic!("nothing was there") };
    exchange_bytes(&target, b"one", Some(0o600), nothing).unwrap();
    exchange_bytes(&target, b"two", None, |old| fs::rename(old, &kept)).unwrap();
    let read = |path| fs::read_to_string(path).unwrap();
    assert_eq!([read(&target), read(&kept)], ["two", "one"]);
    exchange_bytes(&target, b"three", None, |_| io::Result::Ok(())).unwrap();
    assert_eq!((read(&target), names(root.path()).len()), ("three".to_owned(), 2));
    assert_eq!(mode_of(&target).unwrap() & 0o077, 0, "it is more open than the first one");
}

#[test]
fn what_comes_while_a_folder_is_remade_can_be_taken_from_the_old_one() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("a");
    let make = |folder: &Path| {
        assert!(!folder.exists());
        fs::create_dir(folder)?;
        fs::write(folder.join("new"), "new")?;
        // Somebody else comes.
        if target.is_dir() {
            fs::write(target.join("mine"), "mine")?;
        }
        Ok::<_, io::Error>(7)
    };
    let nothing = |_: &Path| -> io::Result<()> { panic!("nothing was there") };
    assert_eq!(remake_folder(&target, make, nothing).unwrap(), 7);
    let retire = |old: &Path| fs::rename(old.join("mine"), root.path().join("mine"));
    remake_folder(&target, make, retire).unwrap();
    assert_eq!(
        (names(root.path()), names(&target)),
        (vec!["a".into(), "mine".into()], vec!["new".into()])
    );
    let fail = |folder: &Path| -> io::Result<()> {
        fs::create_dir(folder)?;
        Err(io::Error::other("full"))
    };
    let failed = remake_folder(&target, fail, nothing);
    assert_eq!(failed.unwrap_err().to_string(), "full");
    assert_eq!((names(root.path()).len(), names(&target)), (2, vec!["new".into()]));
}

#[test]
fn a_temporary_that_was_taken_for_a_leftover_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(marked(OsStr::new("a"), TEMPORARY, "1-0"));
    fs::write(&path, "").unwrap();
    let handle = File::open(&path).unwrap();
    assert!(is_at(&handle, &path));
    remove_leftovers(root.path(), OsStr::new("a"));
    assert!(!is_at(&handle, &path));
    fs::write(&path, "").unwrap();
    assert!(!is_at(&handle, &path), "another file of the same name");
}

#[test]
fn whether_a_folder_can_be_written_is_found_out_without_a_trace() {
    let root = tempfile::tempdir().unwrap();
    try_writing(root.path()).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    let missing = root.path().join("missing");
    let error = try_writing(&missing).unwrap_err().to_string();
    assert!(error.contains("cannot write in `") && error.contains("missing"), "{error}");
    // Nobody makes files there, not even root.
    #[cfg(target_os = "linux")]
    assert!(try_writing("/proc/self").is_err());
}

#[test]
fn what_replaces_is_no_more_open_than_what_it_replaces() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let set = |name: &str, mode| {
        fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let mode =
        |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o777;
    let build = |folder: &Path| {
        fs::create_dir(folder.join("sub"))?;
        fs::write(folder.join("sub/closed"), "")?;
        fs::write(folder.join("open"), "")
    };
    replace_folder(root.path().join("folder"), build).unwrap();
    write_bytes(root.path().join("file"), b"").unwrap();
    set("file", 0o600);
    set("folder/sub/closed", 0o440);
    set("folder/sub", 0o710);
    set("folder", 0o700);
    let open = mode("folder/open");
    let seen_inside = std::cell::Cell::new(0);
    replace_folder(root.path().join("folder"), |folder| {
        seen_inside.set(fs::metadata(folder)?.permissions().mode() & 0o777);
        build(folder)
    })
    .unwrap();
    write_bytes(root.path().join("file"), b"").unwrap();
    // The owner keeps what new files give, or the next replacement could not write.
    assert_eq!(
        [seen_inside.get(), mode("folder"), mode("file"), mode("folder/open")],
        [0o700, 0o700, 0o600, open]
    );
    assert_eq!([mode("folder/sub"), mode("folder/sub/closed") & !0o200], [0o710, 0o440]);
    assert_eq!(names(root.path()), ["file", "folder"]);
}
