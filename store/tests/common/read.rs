//! Reading a queue to its end.

use tidemill_store::{QueueId, ReadRequest, Record, Store};

/// All that a queue has from an offset on, with its offsets.
pub(crate) async fn read_all(store: &Store, queue: QueueId, from: u64) -> Vec<(u64, Record)> {
    let (mut found, mut from) = (Vec::new(), from);
    loop {
        let request = ReadRequest { queue, from, records_max: 100, bytes_max: 1 << 20, durable: false };
        let batch = store.read(request).await.unwrap();
        if batch.records.is_empty() {
            return found;
        }
        from = batch.next;
        found.extend(batch.records);
    }
}
