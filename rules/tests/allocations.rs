//! Matching allocates nothing once its buffers have grown. Alone in its binary: it counts with the global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use tidemill_rules::yaml::{self, Source};
use tidemill_rules::{Context, Message};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System`, by `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn matching_does_not_allocate() {
    let mut text = String::from("connections: { c: { file: {} } }\nrules:\n");
    for number in 0..1_000 {
        text.push_str(&format!(
            "- name: r{number}
  from: {{ mqtt: ['vehicles/+/telemetry'] }}
  to: [{{ c: }}]
  where:
    mqtt: {{ client: ['v{}'], levels: {{ '1': [{{ prefix: v }}] }} }}
    data: {{ engine: {{ temp_c: [{{ numeric: ['>', {number}] }}] }}, tags: [{{ equals-ignore-case: HOT }}], wheels: {{ bar: [2.1] }} }}
",
            number % 10,
        ));
    }
    let node = yaml::parse(Arc::new(Source { name: "rules.yaml".into(), text })).expect("parses");
    let rules = tidemill_rules::load(&[node]).expect("loads");
    let payload = Bytes::from_static(
        br#"{"engine":{"temp_c":111.5,"rpm":900},"tags":["new","hot"],"wheels":[{"bar":2.0},{"bar":2.1}],"other":{"a":[1,2]}}"#,
    );
    let message = Message {
        id: "log/7",
        topic: "vehicles/v1/telemetry",
        payload: &payload,
        time_ms: 0,
        client: "v1",
        user: None,
        qos: 1,
        retain: false,
        content_type: None,
        user_properties: &[],
    };
    let mut out = Vec::new();
    for _ in 0..3 {
        rules.matches(&mut Context::new(&message), &mut out);
    }
    assert_eq!(out.len(), 12, "{out:?}");
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        rules.matches(&mut Context::new(&message), &mut out);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
