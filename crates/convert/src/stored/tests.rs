use super::*;
use kiln_formats::npz;

fn golden(name: &str) -> Checkpoint {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/torch");
    let path = directory.join(name);
    let file = File::new(&path, Arc::new(std::fs::read(&path).unwrap()));
    npz::read(vec![file]).unwrap()
}

#[test]
fn what_was_unpacked_is_told_from_what_is_read() {
    for (name, packed) in [("packed.npz", true), ("numpy.npz", false)] {
        let checkpoint = golden(name);
        assert!(!checkpoint.is_empty());
        for tensor in &checkpoint {
            let stored = Stored::one(&checkpoint, tensor);
            // What is unpacked has a header, too.
            let unpacked = stored.unpacked().checked_sub(tensor.range.len());
            assert_eq!(unpacked.is_some_and(|header| header >= 64), packed);
        }
    }
}

#[test]
fn what_is_made_is_held_and_counted() {
    for (name, packed) in [("packed.npz", true), ("numpy.npz", false)] {
        let checkpoint = golden(name);
        for tensor in checkpoint.iter().filter(|tensor| !tensor.range.is_empty()) {
            let part = Stored::one(&checkpoint, tensor);
            let (length, unpacked) = (tensor.range.len(), part.unpacked());
            let twice = |of: &[Opened<'_>]| Ok([of[0].all()?, of[1].all()?].concat());
            let made = |rows| {
                let making = Making::new(vec![part.clone(), part.clone()], twice);
                Stored::made("made", Type::U8, vec![rows, length], making)
            };
            assert_eq!(made(2).whole(), 2 * length + 2 * part.whole());
            assert_eq!((made(2).unpacked(), unpacked > 0), (2 * unpacked, packed));
            assert_eq!(made(2).path(), part.path());
            let bytes = part.open().unwrap().all().unwrap();
            let (two, three) = (made(2), made(3));
            let opened = two.open().unwrap();
            assert_eq!(opened.rows(1..2).unwrap(), bytes);
            assert_eq!(opened.gather(vec![1, 0]).unwrap(), bytes.repeat(2));
            assert!(opened.rows(1..3).is_err());
            let error = three.open().err().unwrap().to_string();
            assert!(error.contains("made"), "{error}");
        }
    }
}
