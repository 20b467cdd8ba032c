//! The corpus of the fuzz targets, and changes of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::super::fuzzing;
use super::*;

/// Changes of each file.
const CHANGES: u32 = 500;

/// Something that happens to bytes on their way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Repeat(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let telling = prop_oneof![any::<u8>(), proptest::sample::select(&[0, 1, 0x7f, 0x80, 0xff][..])];
    (0..6, any::<Index>(), 0..8_u8, telling).prop_map(|(kind, at, bit, value)| match kind {
        0 => Damage::Flip(at, 1 << bit),
        1 => Damage::Set(at, value),
        2 => Damage::Insert(at, value),
        3 => Damage::Remove(at),
        4 => Damage::Cut(at),
        _ => Damage::Repeat(at),
    })
}

/// Does it all to `bytes`.
pub(super) fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let length = bytes.len();
        match damage {
            Damage::Insert(at, value) => bytes.insert(at.index(length + 1), *value),
            _ if length == 0 => {}
            Damage::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Damage::Set(at, value) => bytes[at.index(length)] = *value,
            Damage::Remove(at) => drop(bytes.remove(at.index(length))),
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Repeat(at) => bytes.extend_from_within(at.index(length)..),
        }
    }
    bytes
}

pub(super) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    vec(damage(), 1..5)
}

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn run(name: &str, target: fn(&[u8])) {
    for file in corpus(name) {
        let bytes = std::fs::read(&file).unwrap();
        target(&bytes);
        let mut runner =
            TestRunner::new(Config { source_file: Some(file!()), ..Config::with_cases(CHANGES) });
        let result = runner.run(&damages(), |damages| {
            target(&damaged(&bytes, &damages));
            Ok(())
        });
        if let Err(error) = result {
            panic!("{}: {error}", file.display());
        }
    }
}

#[test]
fn connections() {
    run("decode", fuzzing::decode);
}

#[test]
fn topics() {
    run("topic", fuzzing::topic);
}

#[test]
fn the_corpus_has_every_packet_of_both_versions_and_what_is_refused() {
    let (mut kinds, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for file in corpus("decode") {
        let bytes = std::fs::read(&file).unwrap();
        let mut decoder = match bytes[0] & 3 {
            1 => Decoder::client(Version::V311, 1_000),
            2 => Decoder::client(Version::V5, 1_000),
            _ => Decoder::server(1_000),
        };
        let (packets, error) = feed(&mut decoder, &bytes[2..], &[]);
        let bad = file.file_name().unwrap().to_string_lossy().contains("bad-");
        assert_eq!(error.is_some(), bad, "{}: {error:?}", file.display());
        reasons.extend(error.map(|error| error.reason));
        kinds.extend(
            packets.iter().map(|packet| (decoder.version() == Some(Version::V5), packet.kind() as u8)),
        );
    }
    // AUTH is not in 3.1.1.
    assert_eq!(kinds.len(), 15 + 14);
    assert_eq!(
        reasons.into_iter().map(|reason| reason.0).collect::<Vec<_>>(),
        [0x81, 0x82, 0x84, 0x90, 0x94, 0x95]
    );
}
