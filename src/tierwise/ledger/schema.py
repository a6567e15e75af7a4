"""The tables, as migrations that are only ever appended to.

A migration that has been released is never edited: a ledger of any age is brought up to date by the ones it lacks,
all in one transaction. Each says why it exists; the file itself keeps that in its table `migrations`, so that a
ledger explains its own shape. Documented column by column in docs/reference/ledger.md, which a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["APPLICATION_ID", "LATEST", "MIGRATIONS", "Migration"]

APPLICATION_ID = 0x54574C47  # "TWLG", in the file's header: tells a ledger from any other SQLite file


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. After one with `rebuild` the roll-up is made anew from the rows, a piece at a time."""

    number: int
    why: str
    sql: tuple[str, ...]
    rebuild: bool = False


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "a call, every attempt it took, and the price each attempt was charged at; prompts are never stored",
        (
            """CREATE TABLE prices (
                digest TEXT NOT NULL PRIMARY KEY,
                model TEXT NOT NULL,
                price TEXT NOT NULL
            ) STRICT, WITHOUT ROWID""",
            """CREATE TABLE calls (
                call_id TEXT NOT NULL PRIMARY KEY,
                started_at_ms INTEGER NOT NULL,
                status TEXT NOT NULL,
                task_type TEXT NOT NULL,
                family TEXT NOT NULL,
                needs TEXT NOT NULL,
                confidence REAL NOT NULL,
                abstained INTEGER NOT NULL,
                tier TEXT NOT NULL,
                model TEXT NOT NULL,
                planned_tier TEXT NOT NULL,
                baseline_model TEXT NOT NULL,
                baseline_nanousd INTEGER,
                latency_ms INTEGER,
                session TEXT,
                project TEXT,
                tags TEXT NOT NULL,
                reasons TEXT NOT NULL,
                error TEXT,
                writer TEXT
            ) STRICT, WITHOUT ROWID""",
            """CREATE TABLE attempts (
                call_id TEXT NOT NULL,
                number INTEGER NOT NULL,
                tier TEXT NOT NULL,
                model TEXT NOT NULL,
                provider TEXT NOT NULL,
                started_at_ms INTEGER NOT NULL,
                outcome TEXT NOT NULL,
                detail TEXT NOT NULL,
                input_tokens INTEGER NOT NULL,
                output_tokens INTEGER NOT NULL,
                cache_read_tokens INTEGER NOT NULL,
                cache_write_5m_tokens INTEGER NOT NULL,
                cache_write_1h_tokens INTEGER NOT NULL,
                thinking_tokens INTEGER NOT NULL,
                web_searches INTEGER NOT NULL,
                estimated INTEGER NOT NULL,
                price TEXT,
                cost_nanousd INTEGER,
                latency_ms INTEGER,
                ttft_ms INTEGER,
                wait_ms INTEGER NOT NULL,
                request_id TEXT,
                reported_model TEXT,
                PRIMARY KEY (call_id, number)
            ) STRICT, WITHOUT ROWID""",
            "CREATE INDEX calls_by_start ON calls (started_at_ms)",
            # Partial: costs nothing for a call recorded whole, and finds what a killed process left without a scan.
            "CREATE INDEX calls_unfinished ON calls (call_id) WHERE writer IS NOT NULL",
        ),
    ),
    Migration(
        2,
        "a report over a million calls must not read them all: sums by day, project, task type, tier and model, "
        "kept in the transaction that writes the rows",
        (
            """CREATE TABLE rollup (
                day INTEGER NOT NULL,
                project TEXT NOT NULL,
                task_type TEXT NOT NULL,
                tier TEXT NOT NULL,
                model TEXT NOT NULL,
                calls INTEGER NOT NULL,
                answered_calls INTEGER NOT NULL,
                open_calls INTEGER NOT NULL,
                unpriced_calls INTEGER NOT NULL,
                baseline_nanousd INTEGER NOT NULL,
                compared_baseline_nanousd INTEGER NOT NULL,
                timed_calls INTEGER NOT NULL,
                latency_ms INTEGER NOT NULL,
                attempts INTEGER NOT NULL,
                failed_attempts INTEGER NOT NULL,
                open_attempts INTEGER NOT NULL,
                unpriced_attempts INTEGER NOT NULL,
                estimated_attempts INTEGER NOT NULL,
                input_tokens INTEGER NOT NULL,
                output_tokens INTEGER NOT NULL,
                cache_read_tokens INTEGER NOT NULL,
                cache_write_5m_tokens INTEGER NOT NULL,
                cache_write_1h_tokens INTEGER NOT NULL,
                thinking_tokens INTEGER NOT NULL,
                web_searches INTEGER NOT NULL,
                cost_nanousd INTEGER NOT NULL,
                open_cost_nanousd INTEGER NOT NULL,
                compared_cost_nanousd INTEGER NOT NULL,
                PRIMARY KEY (day, project, task_type, tier, model)
            ) STRICT, WITHOUT ROWID""",
        ),
        rebuild=True,
    ),
    Migration(
        3,
        "the local latency budget needs speeds that were measured, not assumed: tokens and time of recent accepted "
        "attempts by model, older ones fading",
        (
            """CREATE TABLE speeds (
                model TEXT NOT NULL PRIMARY KEY,
                prompt_tokens REAL NOT NULL,
                prompt_ms REAL NOT NULL,
                output_tokens REAL NOT NULL,
                output_ms REAL NOT NULL,
                samples INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID""",
        ),
    ),
    Migration(
        4,
        "a gateway that others use needs keys that it can take back, and budgets that calls at the same time cannot "
        "overshoot: what a call may cost is set aside before it leaves, and replaced by what it did cost",
        (
            """CREATE TABLE api_keys (
                key_id TEXT NOT NULL PRIMARY KEY,
                name TEXT NOT NULL,
                hash TEXT NOT NULL,
                created_at_ms INTEGER NOT NULL,
                revoked_at_ms INTEGER,
                project TEXT,
                scopes TEXT NOT NULL,
                policy TEXT NOT NULL
            ) STRICT, WITHOUT ROWID""",
            """CREATE TABLE budgets (
                budget_id TEXT NOT NULL PRIMARY KEY,
                scope TEXT NOT NULL,
                subject TEXT NOT NULL,
                period TEXT NOT NULL,
                limit_nanousd INTEGER NOT NULL,
                hard INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL,
                UNIQUE (scope, subject, period)
            ) STRICT, WITHOUT ROWID""",
            """CREATE TABLE budget_state (
                budget_id TEXT NOT NULL,
                period_start_ms INTEGER NOT NULL,
                spent_nanousd INTEGER NOT NULL,
                reserved_nanousd INTEGER NOT NULL,
                PRIMARY KEY (budget_id, period_start_ms)
            ) STRICT, WITHOUT ROWID""",
            """CREATE TABLE reservations (
                call_id TEXT NOT NULL,
                budget_id TEXT NOT NULL,
                period_start_ms INTEGER NOT NULL,
                reserved_at_ms INTEGER NOT NULL,
                reserved_nanousd INTEGER NOT NULL,
                settled_nanousd INTEGER,
                writer TEXT NOT NULL,
                PRIMARY KEY (call_id, budget_id)
            ) STRICT, WITHOUT ROWID""",
            # Partial, as `calls_unfinished`: finds what a killed process left without a scan.
            "CREATE INDEX reservations_open ON reservations (call_id) WHERE settled_nanousd IS NULL",
        ),
    ),
    Migration(
        5,
        "what people say of a call afterwards, so that the classifier can learn from it; and, only where capture_text "
        "is switched on, what the classifier saw of its prompt, without which there is nothing to learn from",
        (
            """CREATE TABLE feedback (
                call_id TEXT NOT NULL PRIMARY KEY,
                at_ms INTEGER NOT NULL,
                verdict TEXT,
                task_type TEXT,
                source TEXT NOT NULL
            ) STRICT, WITHOUT ROWID""",
            """CREATE TABLE captured (
                call_id TEXT NOT NULL PRIMARY KEY,
                at_ms INTEGER NOT NULL,
                text TEXT NOT NULL
            ) STRICT, WITHOUT ROWID""",
        ),
    ),
    Migration(
        6,
        "a page over ten million attempts must not sum a day's every combination: sums by hour and day for each choice "
        "of project, key and task type, with how long calls took, how they climbed and what the cache did; calls keep "
        "the key they came with, sessions are found without a scan, and old rows may go while their sums stay",
        (
            "ALTER TABLE calls ADD COLUMN key_id TEXT",
            "ALTER TABLE attempts ADD COLUMN cache_saved_nanousd INTEGER",
            # Those without cache tokens are left alone: it would rewrite every row, for a 0 that NULL counts as.
            """UPDATE attempts SET cache_saved_nanousd = cache_saved_nanousd(
                (SELECT p.price FROM prices AS p WHERE p.digest = attempts.price),
                input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens
            ) WHERE cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens > 0
            AND price IN (SELECT digest FROM prices)""",
            "CREATE INDEX calls_by_session ON calls (session, started_at_ms) WHERE session IS NOT NULL",
            "DROP TABLE rollup",
            """CREATE TABLE rollup_recent (
                hour INTEGER NOT NULL,
                project TEXT NOT NULL,
                key_id TEXT NOT NULL,
                task_type TEXT NOT NULL,
                tier TEXT NOT NULL,
                model TEXT NOT NULL,
                calls INTEGER NOT NULL,
                answered_calls INTEGER NOT NULL,
                failed_calls INTEGER NOT NULL,
                cancelled_calls INTEGER NOT NULL,
                open_calls INTEGER NOT NULL,
                abstained_calls INTEGER NOT NULL,
                climbed_calls INTEGER NOT NULL,
                unpriced_calls INTEGER NOT NULL,
                baseline_nanousd INTEGER NOT NULL,
                compared_baseline_nanousd INTEGER NOT NULL,
                timed_calls INTEGER NOT NULL,
                latency_ms INTEGER NOT NULL,
                confidence_millionths INTEGER NOT NULL,
                attempts INTEGER NOT NULL,
                accepted_attempts INTEGER NOT NULL,
                rejected_attempts INTEGER NOT NULL,
                failed_attempts INTEGER NOT NULL,
                open_attempts INTEGER NOT NULL,
                unpriced_attempts INTEGER NOT NULL,
                estimated_attempts INTEGER NOT NULL,
                input_tokens INTEGER NOT NULL,
                output_tokens INTEGER NOT NULL,
                cache_read_tokens INTEGER NOT NULL,
                cache_write_5m_tokens INTEGER NOT NULL,
                cache_write_1h_tokens INTEGER NOT NULL,
                thinking_tokens INTEGER NOT NULL,
                web_searches INTEGER NOT NULL,
                cost_nanousd INTEGER NOT NULL,
                open_cost_nanousd INTEGER NOT NULL,
                compared_cost_nanousd INTEGER NOT NULL,
                cache_saved_nanousd INTEGER NOT NULL,
                counts TEXT NOT NULL,
                PRIMARY KEY (hour, project, key_id, task_type, tier, model)
            ) STRICT, WITHOUT ROWID""",
            """CREATE TABLE rollup (
                span_hours INTEGER NOT NULL,
                cut INTEGER NOT NULL,
                project TEXT NOT NULL,
                key_id TEXT NOT NULL,
                task_type TEXT NOT NULL,
                hour INTEGER NOT NULL,
                tier TEXT NOT NULL,
                model TEXT NOT NULL,
                calls INTEGER NOT NULL,
                answered_calls INTEGER NOT NULL,
                failed_calls INTEGER NOT NULL,
                cancelled_calls INTEGER NOT NULL,
                open_calls INTEGER NOT NULL,
                abstained_calls INTEGER NOT NULL,
                climbed_calls INTEGER NOT NULL,
                unpriced_calls INTEGER NOT NULL,
                baseline_nanousd INTEGER NOT NULL,
                compared_baseline_nanousd INTEGER NOT NULL,
                timed_calls INTEGER NOT NULL,
                latency_ms INTEGER NOT NULL,
                confidence_millionths INTEGER NOT NULL,
                attempts INTEGER NOT NULL,
                accepted_attempts INTEGER NOT NULL,
                rejected_attempts INTEGER NOT NULL,
                failed_attempts INTEGER NOT NULL,
                open_attempts INTEGER NOT NULL,
                unpriced_attempts INTEGER NOT NULL,
                estimated_attempts INTEGER NOT NULL,
                input_tokens INTEGER NOT NULL,
                output_tokens INTEGER NOT NULL,
                cache_read_tokens INTEGER NOT NULL,
                cache_write_5m_tokens INTEGER NOT NULL,
                cache_write_1h_tokens INTEGER NOT NULL,
                thinking_tokens INTEGER NOT NULL,
                web_searches INTEGER NOT NULL,
                cost_nanousd INTEGER NOT NULL,
                open_cost_nanousd INTEGER NOT NULL,
                compared_cost_nanousd INTEGER NOT NULL,
                cache_saved_nanousd INTEGER NOT NULL,
                counts TEXT NOT NULL,
                PRIMARY KEY (span_hours, cut, project, key_id, task_type, hour, tier, model)
            ) STRICT, WITHOUT ROWID""",
            """CREATE TABLE rollup_state (
                id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
                hours_since INTEGER NOT NULL,
                pruned_before_ms INTEGER NOT NULL
            ) STRICT""",
            "INSERT INTO rollup_state (id, hours_since, pruned_before_ms) VALUES (1, 0, 0)",
        ),
        rebuild=True,
    ),
    Migration(
        7,
        "who looks at a call wants to know what its decision expected each rung to cost, those too that were not tried",
        ("ALTER TABLE calls ADD COLUMN ladder TEXT",),
    ),
    Migration(
        8,
        "what `tierwise exec` records of a whole session may be reported call by call too, before it or later: who has "
        "recorded a session whole claims it, so that nothing of it is counted twice",
        (
            """CREATE TABLE claimed_sessions (
                session TEXT NOT NULL PRIMARY KEY,
                at_ms INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID""",
        ),
    ),
    Migration(
        9,
        "a batch is answered hours later, perhaps to another process, perhaps twice: its requests are calls that stay "
        "open until their results are read, found by the batch's name and their own in it",
        (
            "ALTER TABLE calls ADD COLUMN batch_id TEXT",
            "ALTER TABLE calls ADD COLUMN custom_id TEXT",
            "CREATE INDEX calls_by_batch ON calls (batch_id, custom_id) WHERE batch_id IS NOT NULL",
            """CREATE TABLE batches (
                batch_id TEXT NOT NULL PRIMARY KEY,
                upstream_id TEXT,
                provider TEXT NOT NULL,
                account TEXT,
                key_id TEXT,
                requests INTEGER NOT NULL,
                sent_at_ms INTEGER NOT NULL,
                ended_at_ms INTEGER
            ) STRICT, WITHOUT ROWID""",
            "CREATE UNIQUE INDEX batches_by_upstream ON batches (provider, upstream_id) WHERE upstream_id IS NOT NULL",
        ),
    ),
    Migration(
        10,
        "a year is read by its weeks; calls that end cost no sums while they are written: the roll-up says which calls "
        "are in it, others are read from their rows; so it can be made anew while everybody goes on",
        (
            "ALTER TABLE rollup_state ADD COLUMN since_ms INTEGER NOT NULL DEFAULT -4611686018427387904",
            "ALTER TABLE rollup_state ADD COLUMN since_id TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE rollup_state ADD COLUMN until_ms INTEGER NOT NULL DEFAULT -4611686018427387904",
            "ALTER TABLE rollup_state ADD COLUMN until_id TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE rollup_state ADD COLUMN is_stale INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE rollup_state ADD COLUMN changes INTEGER NOT NULL DEFAULT 0",
        ),
        rebuild=True,
    ),
)
LATEST = MIGRATIONS[-1].number
