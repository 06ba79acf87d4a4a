//! What a node that moves messages holds meanwhile.

use super::commit::lease_of;
use super::pack::Pack;
use super::script::HOLD;
use super::walk::{Entry, place_of};
use super::{Core, admin, micros_to_time};
use celeriac_core::store::{Delivery, NodeId};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use redis::Value as Answer;

/// The most messages of one script.
const BATCH: usize = 500;

/// Leases waiting messages by row.
pub(super) async fn hold(
    core: &Core,
    node: NodeId,
    rows: &[i64],
) -> Result<Vec<Delivery>, StoreError> {
    let found: Vec<Entry> = admin::entries(core, rows)
        .await?
        .into_iter()
        // What is no message is set aside by the next worker.
        .filter_map(|(_, entry)| entry.packet().is_some().then_some(entry))
        .collect();
    let mut deliveries = Vec::new();
    for some in found.chunks(BATCH) {
        let mut argument = Pack::default();
        argument.map(4);
        core.pack_head(&mut argument);
        argument.text("node").text(&node.0.to_string());
        argument.text("rows").array(some.len());
        for entry in some {
            let (queue, step) = place_of(core, entry.source.key());
            argument.array(5).text(entry.source.kind()).text(entry.source.key());
            argument.bytes(&entry.member).text(queue).text(step);
        }
        let answer = core.link.script("hold messages", &HOLD, argument.into_bytes()).await?;
        let Answer::Array(numbers) = answer else {
            let what = format!("hold messages for node {}, which is not alive", node.0);
            return Err(StoreError::new(ErrorKind::Conflict, what));
        };
        let held = some.iter().zip(&numbers);
        deliveries.extend(held.filter_map(|(entry, number)| match number {
            Answer::Int(row) if *row != 0 => delivery(core, node, *row, entry),
            _ => None,
        }));
    }
    Ok(deliveries)
}

fn delivery(core: &Core, node: NodeId, row: i64, entry: &Entry) -> Option<Delivery> {
    let packet = entry.packet()?;
    Some(Delivery {
        lease: lease_of(node.0, row),
        queue: QueueName::parse(&entry.queue).ok()?,
        revoked: false,
        redelivered: packet.notes.redelivered,
        acknowledged: packet.notes.lost,
        suspicion: packet.notes.suspicion,
        enqueued_at: packet.notes.enqueued.map_or_else(|| core.now(), micros_to_time),
        history: packet.notes.history,
        message: packet.message,
    })
}
