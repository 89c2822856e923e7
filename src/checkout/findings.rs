//! Findings, as members of staff see and close them.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::CheckoutError;
use crate::{
    audit,
    context::Context,
    kernel::{UserId, rerun},
    payments::{
        Fate,
        findings::{Finding, Kind, store},
        store::find_capture,
    },
};

/// A member of staff's word that a finding is dealt with.
#[derive(Debug, Clone)]
pub struct CloseFinding {
    pub finding_id: Uuid,
    pub staff_id: UserId,
    /// What was done about it, for colleagues.
    pub note: String,
    /// Names the request in the audit log.
    pub request_id: Option<String>,
}

/// Up to `limit` findings, the open ones alone or all, the newest first; `before` is the last of the
/// page before.
pub async fn list_findings(
    cx: &Context,
    open_only: bool,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Finding>, CheckoutError> {
    Ok(store::list(&cx.db, open_only, before, limit).await?)
}

/// Closes the finding. The same word of the same person again changes nothing.
pub async fn close_finding(cx: &Context, wish: &CloseFinding) -> Result<Finding, CheckoutError> {
    rerun(|| close(cx, wish), CheckoutError::database).await
}

async fn close(cx: &Context, wish: &CloseFinding) -> Result<Finding, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    match attempt(&mut tx, wish).await {
        Ok(finding) => {
            tx.commit().await.map_err(CheckoutError::of_commit)?;
            Ok(finding)
        }
        Err(error) => {
            // Not left to the drop, which would keep the finding locked while the next attempt asks for it.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

async fn attempt(tx: &mut PgConnection, wish: &CloseFinding) -> Result<Finding, CheckoutError> {
    let id = wish.finding_id;
    let known = store::find(&mut *tx, id).await?.ok_or(CheckoutError::NoSuchFinding)?;
    if known.kind == Kind::Quarantined && is_undecided(&mut *tx, &known).await? {
        return Err(CheckoutError::Undecided);
    }
    let Some(closed) = store::close(&mut *tx, id, wish.staff_id, &wish.note).await? else {
        // A statement of its own: only one that starts after the update sees who was faster.
        let known = store::find(&mut *tx, id).await?.ok_or(CheckoutError::NoSuchFinding)?;
        let is_repeat =
            known.closed_by == Some(wish.staff_id) && known.note.as_ref() == Some(&wish.note);
        return if is_repeat { Ok(known) } else { Err(CheckoutError::FindingClosed) };
    };
    audit::record(tx, &entry(wish, &closed)).await?;
    Ok(closed)
}

/// Whether the money that it tells of still waits for a decision. Money that was decided about never
/// waits again.
async fn is_undecided(tx: &mut PgConnection, finding: &Finding) -> sqlx::Result<bool> {
    let Ok(capture_id) = finding.subject.parse() else { return Ok(false) };
    let capture = find_capture(tx, capture_id).await?;
    Ok(capture.is_some_and(|capture| matches!(capture.fate, Fate::Quarantined(_))))
}

fn entry(wish: &CloseFinding, closed: &Finding) -> audit::Entry {
    audit::Entry {
        actor_id: wish.staff_id,
        action: "closeFinding".to_owned(),
        subject: format!("finding:{}", closed.id),
        before: Some(json!({ "kind": closed.kind.name(), "subject": closed.subject })),
        after: Some(json!({ "note": wish.note })),
        request_id: wish.request_id.clone(),
    }
}
