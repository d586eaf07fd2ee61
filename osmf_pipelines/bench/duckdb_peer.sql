-- What the pipeline does from files to `creative_stats`, as one would write it for DuckDB by hand: single node, no
-- Delta, no data-quality suites, no ledger, nothing staged. Reads the layout that `osmf simulate` writes.
-- `duckdb_peer.py` runs the parts in order, times them, sets the variables, and writes the tables that a part names.

-- part: bronze
CREATE VIEW judged_impressions AS
SELECT
    regexp_extract(filename, 'days/([0-9-]+)/', 1)::DATE AS source_date,
    imp_id AS impression_id, uid, item AS product_id, ad AS creative_id,
    ts AT TIME ZONE 'UTC' AS impressed_at,
    pos AS position, slot AS slot_type, p AS propensity,
    NULL::VARCHAR AS experiment_id, NULL::VARCHAR AS arm, NULL::VARCHAR AS model_version,
    to_json({imp_id: imp_id, uid: uid, item: item, ad: ad, ts: ts, pos: pos, slot: slot, p: p}) AS payload,
    parse_filename(filename) AS source_file,
    list_filter([
        CASE WHEN imp_id IS NULL THEN 'missing_impression_id' END,
        CASE WHEN uid IS NULL THEN 'missing_user_id' END,
        CASE WHEN item IS NULL THEN 'missing_product_id' END,
        CASE WHEN ad IS NULL THEN 'missing_creative_id' END,
        CASE WHEN ts IS NULL THEN 'missing_impressed_at' END,
        CASE WHEN ad IS NOT NULL AND known_product_id IS NULL THEN 'unknown_creative' END,
        CASE WHEN item <> known_product_id THEN 'creative_of_another_product' END,
        CASE WHEN impressed_at::DATE <> source_date THEN 'outside_source_date' END,
        CASE WHEN pos < 1 THEN 'position_below_1' END,
        CASE WHEN p <= 0 OR p > 1 THEN 'propensity_not_in_0_1' END
    ], lambda reason: reason IS NOT NULL) AS reasons,
    coalesce(
        imp_id IS NULL OR uid IS NULL OR item IS NULL OR ad IS NULL OR ts IS NULL OR known_product_id IS NULL
        OR item <> known_product_id OR impressed_at::DATE <> source_date OR pos < 1 OR p <= 0 OR p > 1,
        false
    ) AS is_bad
FROM read_parquet(getvariable('impression_files'), filename = true)
LEFT JOIN (SELECT ad, item AS known_product_id FROM read_parquet(getvariable('creative_files'))) USING (ad);

CREATE TEMP TABLE user_ids AS
SELECT uid, substring(sha256(getvariable('user_key') || ':' || uid), 1, 32) AS user_id
FROM (
    SELECT uid FROM read_parquet(getvariable('impression_files')) WHERE uid IS NOT NULL
    UNION
    SELECT uid FROM read_parquet(getvariable('user_files'))
);

CREATE TEMP TABLE accepted_impressions AS
SELECT
    source_date, impression_id, user_id, product_id, creative_id, impressed_at, coalesce(position, 1) AS position,
    coalesce(slot_type, 'default') AS slot_type, propensity, experiment_id, arm, model_version, source_file
FROM judged_impressions JOIN user_ids USING (uid)
WHERE NOT is_bad;

CREATE TEMP TABLE repeated_impressions AS
SELECT *, row(user_id, product_id, creative_id, impressed_at, position, slot_type, propensity) AS told
FROM accepted_impressions
SEMI JOIN (
    SELECT source_date, impression_id FROM accepted_impressions GROUP BY ALL HAVING count(*) > 1
) USING (source_date, impression_id);

CREATE TEMP TABLE conflicting_impressions AS
SELECT source_date, impression_id FROM repeated_impressions
GROUP BY ALL HAVING count(DISTINCT told) > 1;

CREATE VIEW single_impressions AS
SELECT * FROM accepted_impressions ANTI JOIN repeated_impressions USING (source_date, impression_id)
UNION ALL BY NAME
SELECT DISTINCT ON (source_date, impression_id) * EXCLUDE (told)
FROM repeated_impressions ANTI JOIN conflicting_impressions USING (source_date, impression_id);

CREATE VIEW bronze_impressions AS
SELECT single_impressions.*, num_user_impressions
FROM single_impressions
JOIN (
    SELECT source_date, user_id, count(*) AS num_user_impressions FROM single_impressions GROUP BY ALL
) USING (source_date, user_id);

CREATE VIEW judged_clicks_as_read AS
SELECT
    regexp_extract(filename, 'days/([0-9-]+)/', 1)::DATE AS source_date,
    click AS click_id, imp_id AS impression_id, ts AT TIME ZONE 'UTC' AS clicked_at,
    to_json({click: click, imp_id: imp_id, ts: ts}) AS payload,
    parse_filename(filename) AS source_file,
    list_filter([
        CASE WHEN click IS NULL THEN 'missing_click_id' END,
        CASE WHEN imp_id IS NULL THEN 'missing_impression_id' END,
        CASE WHEN ts IS NULL THEN 'missing_clicked_at' END,
        CASE WHEN clicked_at::DATE > source_date THEN 'after_source_date' END
    ], lambda reason: reason IS NOT NULL) AS reasons
FROM read_parquet(getvariable('click_files'), filename = true);

CREATE TEMP TABLE accepted_clicks AS
SELECT source_date, click_id, impression_id, clicked_at, source_file
FROM judged_clicks_as_read WHERE len(reasons) = 0;

CREATE TEMP TABLE conflicting_clicks AS
SELECT source_date, click_id FROM accepted_clicks
GROUP BY ALL HAVING count(DISTINCT row(impression_id, clicked_at)) > 1;

CREATE VIEW bronze_clicks AS
SELECT DISTINCT ON (source_date, click_id) *
FROM accepted_clicks ANTI JOIN conflicting_clicks USING (source_date, click_id);

CREATE VIEW quarantined_events AS
SELECT source_date, 'impression' AS event_type, reasons, payload, source_file FROM judged_impressions WHERE is_bad
UNION ALL
SELECT source_date, 'click', reasons, payload, source_file FROM judged_clicks_as_read WHERE len(reasons) > 0
UNION ALL
SELECT source_date, 'impression', ['conflicting_duplicate'], payload, source_file
FROM judged_impressions SEMI JOIN conflicting_impressions USING (source_date, impression_id) WHERE NOT is_bad
UNION ALL
SELECT source_date, 'click', ['conflicting_duplicate'], payload, source_file
FROM judged_clicks_as_read SEMI JOIN conflicting_clicks USING (source_date, click_id) WHERE len(reasons) = 0;

-- writes: bronze_impressions by source_date, bronze_clicks by source_date, quarantined_events by source_date

-- part: silver_exposures
CREATE TEMP TABLE matched_clicks AS
SELECT
    click.source_date, click_id, shown.source_date AS event_date, impressed_at,
    num_user_impressions > getvariable('max_impressions_per_user_day') AS is_bot
FROM bronze_clicks AS click JOIN bronze_impressions AS shown USING (impression_id)
WHERE click.source_date - shown.source_date BETWEEN 0 AND getvariable('lookback_days') + getvariable('window_days')
-- The latest impression before the click, or else the earliest after it.
QUALIFY row_number() OVER (
    PARTITION BY click.source_date, click_id
    ORDER BY impressed_at <= clicked_at DESC, CASE WHEN impressed_at <= clicked_at THEN impressed_at END DESC,
        impressed_at
) = 1;

CREATE TEMP TABLE copied_clicks AS
SELECT click_id, source_date, impression_id, clicked_at FROM bronze_clicks
WHERE click_id IN (SELECT click_id FROM bronze_clicks GROUP BY click_id HAVING count(*) > 1);

CREATE TEMP TABLE judged_clicks AS
WITH copies AS (
    SELECT
        one.click_id, one.source_date,
        bool_or(other.impression_id <> one.impression_id OR other.clicked_at <> one.clicked_at) AS is_conflict,
        bool_or(
            other.impression_id = one.impression_id AND other.clicked_at = one.clicked_at
            AND other.source_date < one.source_date
        ) AS is_duplicate
    FROM copied_clicks AS one
    JOIN matched_clicks AS own ON own.click_id = one.click_id AND own.source_date = one.source_date
    JOIN copied_clicks AS other
        ON other.click_id = one.click_id
        AND abs(other.source_date - own.event_date) <= getvariable('lookback_days')
    GROUP BY ALL
),
faults AS (
    SELECT
        bronze_clicks.*, event_date,
        CASE
            WHEN event_date IS NULL THEN 'orphan'
            WHEN source_date - event_date > getvariable('lookback_days') THEN 'past_lookback'
            WHEN is_conflict THEN 'conflict'
            WHEN is_duplicate THEN 'duplicate'
            WHEN is_bot THEN 'bot'
            WHEN clicked_at < impressed_at THEN 'before_impression'
            WHEN clicked_at > impressed_at + to_hours(getvariable('window_hours')) THEN 'outside_window'
        END AS fault
    FROM bronze_clicks
    LEFT JOIN matched_clicks USING (source_date, click_id)
    LEFT JOIN copies USING (source_date, click_id)
)
SELECT
    * EXCLUDE (fault),
    coalesce(
        fault,
        CASE
            WHEN row_number() OVER (
                PARTITION BY event_date, impression_id, fault ORDER BY clicked_at, click_id
            ) = 1 THEN 'attributed' ELSE 'repeat'
        END
    ) AS outcome
FROM faults;

CREATE VIEW silver_exposures AS
SELECT
    shown.source_date AS event_date, shown.impression_id, shown.user_id, products.scope,
    coalesce(people.cell, getvariable('unknown_cell')) AS cell, people.user_fold, shown.product_id, shown.creative_id,
    shown.impressed_at, shown.position, shown.slot_type, shown.propensity, shown.experiment_id, shown.arm,
    shown.model_version, clicks.clicked_at IS NOT NULL AS is_clicked, clicks.clicked_at
FROM bronze_impressions AS shown
JOIN (SELECT item AS product_id, category AS scope FROM read_parquet(getvariable('product_files'))) AS products
    USING (product_id)
JOIN people USING (user_id)
LEFT JOIN (SELECT event_date, impression_id, clicked_at FROM judged_clicks WHERE outcome = 'attributed') AS clicks
    ON clicks.event_date = shown.source_date AND clicks.impression_id = shown.impression_id
WHERE num_user_impressions <= getvariable('max_impressions_per_user_day');

-- writes: silver_exposures by event_date

-- part: creative_stats
CREATE VIEW creative_stats AS
SELECT
    event_date, scope, cell, user_fold, product_id, creative_id, slot_type, position,
    count(*) AS num_impressions,
    count(*) FILTER (is_clicked) AS num_clicks,
    CASE WHEN count(propensity) = count(*) THEN sum(round(1000 / propensity)::BIGINT) END::BIGINT
        AS inverse_propensity_millis
FROM silver_exposures
WHERE model_version IS NULL
GROUP BY ALL;

-- writes: creative_stats by event_date

-- part: cell_users
CREATE VIEW cell_users AS
SELECT DISTINCT event_date, scope, cell, user_id FROM silver_exposures WHERE model_version IS NULL;

-- writes: cell_users by event_date
