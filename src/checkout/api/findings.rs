//! What a person has to look at.

use poem::http::Uri;
use poem_openapi::{
    ApiResponse, Object, OpenApi, Tags,
    param::{Path, Query},
    payload::Json,
};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    checkout::{CloseFinding, close_finding, list_findings},
    context::Context,
    identity::Staff,
    kernel::{OrderId, UserId},
    payments::findings::Finding,
    web::{
        Problem,
        page::{self, Limit},
        request_id,
    },
};

/// What was found, and its end.
pub struct FindingsApi {
    cx: Context,
}

impl FindingsApi {
    pub const fn new(cx: Context) -> Self {
        Self { cx }
    }
}

/// Names the list in cursors, with the version of its position.
const LIST: &str = "findings.1";

#[derive(Debug, Tags)]
enum Tag {
    /// What a person has to look at.
    Findings,
}

#[OpenApi(prefix_path = "/v1/admin/findings", tag = "Tag::Findings")]
impl FindingsApi {
    /// List findings
    ///
    /// For staff. What a person has to look at, the newest first.
    #[oai(path = "/", method = "get", operation_id = "listFindings")]
    async fn list_findings(
        &self,
        _staff: Staff,
        uri: &Uri,
        /// `false` lists those that are closed, too; `true` if left out.
        open: Query<Option<bool>>,
        /// 1 to 100; 20 if left out.
        limit: Query<Option<u32>>,
        /// From `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<ListFindingsResponse, Problem> {
        let limit = Limit::new(limit.0)?;
        let before = cursor.0.map(|cursor| page::position::<Uuid>(LIST, &cursor)).transpose()?;
        let open_only = open.0.unwrap_or(true);
        let mut findings = list_findings(&self.cx, open_only, before, limit.rows()).await?;
        let has_more = findings.len() > limit.get();
        findings.truncate(limit.get());
        let last = findings.last().filter(|_| has_more);
        let next_cursor = last.map(|finding| page::cursor(LIST, &finding.id));
        let link = next_cursor.as_ref().map(|cursor| page::next_link(uri, cursor));
        let items = findings.into_iter().map(FindingBody::from).collect();
        Ok(ListFindingsResponse::Page(Json(FindingPageBody { items, next_cursor }), link))
    }

    /// Close a finding
    ///
    /// For staff: somebody has seen to it. Quarantined money is to be decided about instead. The same
    /// request again changes nothing.
    #[oai(path = "/:id/close", method = "post", operation_id = "closeFinding")]
    async fn close_finding(
        &self,
        staff: Staff,
        id: Path<Uuid>,
        body: Json<CloseFindingBody>,
    ) -> Result<Json<FindingBody>, Problem> {
        let wish = CloseFinding {
            finding_id: id.0,
            staff_id: staff.user_id(),
            note: body.0.note,
            request_id: request_id::current(),
        };
        Ok(Json(close_finding(&self.cx, &wish).await?.into()))
    }
}

#[derive(ApiResponse)]
enum ListFindingsResponse {
    /// A page of findings.
    #[oai(status = 200)]
    Page(
        Json<FindingPageBody>,
        /// `rel="next"`, unless this is the last page.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(Debug, Object)]
#[oai(rename = "CloseFinding", deny_unknown_fields)]
struct CloseFindingBody {
    /// What was done about it.
    #[oai(validator(min_length = 1, max_length = 500))]
    note: String,
}

#[derive(Debug, Object)]
#[oai(rename = "FindingPage")]
struct FindingPageBody {
    items: Vec<FindingBody>,
    /// `null` on the last page.
    next_cursor: Option<String>,
}

/// Something that a person has to look at.
#[derive(Debug, Object)]
#[oai(rename = "Finding", skip_serializing_if_is_none)]
struct FindingBody {
    id: Uuid,
    /// `quarantined`, `refund_failed`, `refund_withheld`, `disputed`, `parked_webhook` or
    /// `unknown_money`.
    kind: String,
    /// What it is about: the id of a capture, refund or webhook, or the provider's name for a dispute or
    /// for money.
    subject: String,
    order_id: Option<Uuid>,
    detail: Value,
    opened_at: OffsetDateTime,
    closed_at: Option<OffsetDateTime>,
    /// Who closed it; left out where it was over by itself.
    closed_by: Option<Uuid>,
    note: Option<String>,
}

impl From<Finding> for FindingBody {
    fn from(finding: Finding) -> Self {
        Self {
            id: finding.id,
            kind: finding.kind.name().to_owned(),
            subject: finding.subject,
            order_id: finding.order_id.map(OrderId::uuid),
            detail: finding.detail,
            opened_at: finding.opened_at,
            closed_at: finding.closed_at,
            closed_by: finding.closed_by.map(UserId::uuid),
            note: finding.note,
        }
    }
}
