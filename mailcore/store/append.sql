-- Stores what arrived together: the one statement behind `store.append`, so that a delivery is one round trip to the
-- database, commit included. Jobs come in order and see what those before them used up of a quota.
--
--   m_*  the distinct messages with what is derived from them (m_keys: thread keys of all, m_keys_from:m_keys_to of one)
--   i_*  the items, grouped by job: which message (1-based) goes into which mailbox; of an atomic job all or none
--   e_*  steps to trace with their job when, and only when, that was accepted
--
-- One row per item in order: its numbers, or `o_refused` = 1 no such mailbox, 2 over quota.
-- Locks (DESIGN §5): accounts in ascending order, then mailboxes, then blobs by hash.
CREATE OR REPLACE FUNCTION append_messages(
    m_hash bytea[], m_data bytea[], m_size bigint[], m_header_size int[], m_sent_at timestamptz[], m_sent_on date[],
    m_has_attachment bool[], m_message_id text[], m_base_subject text[], m_preview text[], m_envelope bytea[],
    m_bodystructure bytea[], m_headers bytea[], m_parts bytea[], m_summary text[], m_from text[], m_to text[],
    m_cc text[], m_bcc text[], m_subject text[], m_body_at int[], m_text text[], m_sort_keys text[], m_ancestry bytea[],
    m_keys_from int[], m_keys_to int[], m_keys bigint[],
    i_job int[], i_atomic bool[], i_mail int[], i_account bigint[], i_mailbox bigint[], i_flags int[],
    i_keywords text[], i_internal_date timestamptz[], i_trace_id text[], i_recipient text[],
    e_job int[], e_at timestamptz[], e_trace_id text[], e_step text[], e_account bigint[], e_outbound bigint[], e_sender text[],
    e_recipient text[], e_message_id text[], e_detail text[]
) RETURNS TABLE (
    o_refused int, o_uid bigint, o_uidvalidity bigint, o_message bigint, o_modseq bigint, o_thread bigint
)
LANGUAGE plpgsql
-- Every statement looks up by key: planned once, whatever the sizes of the tables were at that moment.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $append$
DECLARE
    item record;
    job int := -1;
    job_refused int;
    keys bigint[];
    used_hashes bytea[] := '{}';
    -- What has been accepted, in order: its rows are written together, as a statement for each would cost half of it all.
    r_job int[] := '{}';
    r_mail int[] := '{}';
    r_account bigint[] := '{}';
    r_mailbox bigint[] := '{}';
    r_flags int[] := '{}';
    r_keywords text[] := '{}';
    r_date timestamptz[] := '{}';
    r_trace_id text[] := '{}';
    r_recipient text[] := '{}';
    r_message bigint[] := '{}';
    r_uid bigint[] := '{}';
    r_modseq bigint[] := '{}';
    r_thread bigint[] := '{}';
BEGIN
    IF cardinality(i_job) > 1 THEN -- one alone is locked in this order anyway
        PERFORM FROM account_state a WHERE a.account_id = ANY(i_account) ORDER BY a.account_id FOR UPDATE;
        PERFORM FROM mailbox b JOIN unnest(i_account, i_mailbox) AS k(account_id, id) USING (account_id, id)
            ORDER BY b.account_id, b.id FOR UPDATE OF b;
    END IF;

    -- Nothing that may be long is in these rows: they are sorted, and a long text to a thousand people would fill
    -- gigabytes of the disk.
    FOR item IN
        SELECT i.*, m.hash, m.size, m.keys_from, m.keys_to
        FROM unnest(i_job, i_atomic, i_mail, i_account, i_mailbox, i_flags, i_keywords, i_internal_date, i_trace_id,
                i_recipient) WITH ORDINALITY
                AS i(job, atomic, mail, account, mailbox, flags, keywords, internal_date, trace_id, recipient, n)
            JOIN unnest(m_hash, m_size, m_keys_from, m_keys_to) WITH ORDINALITY
                AS m(hash, size, keys_from, keys_to, mail) USING (mail)
        ORDER BY i.n
    LOOP
        IF item.job <> job THEN
            job := item.job;
            job_refused := 0;
            IF item.atomic AND i_job[item.n + 1] = job THEN -- the only item of a job is refused by the UPDATE below
                SELECT x.refused INTO job_refused FROM (
                    SELECT i.n, CASE
                        WHEN b.id IS NULL THEN 1
                        WHEN a.bytes + sum(m_size[i.mail]) OVER (PARTITION BY i.account ORDER BY i.n) > a.quota_bytes
                            OR a.messages + count(*) OVER (PARTITION BY i.account ORDER BY i.n) > a.quota_messages
                            THEN 2 ELSE 0 END AS refused
                    FROM unnest(i_job, i_mail, i_account, i_mailbox) WITH ORDINALITY AS i(job, mail, account, mailbox, n)
                        LEFT JOIN account_state a ON a.account_id = i.account
                        LEFT JOIN mailbox b ON b.account_id = i.account AND b.id = i.mailbox
                    WHERE i.job = item.job
                ) x WHERE x.refused > 0 ORDER BY x.n LIMIT 1;
                job_refused := coalesce(job_refused, 0);
            END IF;
        END IF;

        o_refused := job_refused;
        IF o_refused = 0 THEN
            UPDATE account_state a
            SET modseq = a.modseq + 1, next_message = a.next_message + 1, messages = a.messages + 1,
                bytes = a.bytes + item.size
            WHERE a.account_id = item.account AND (a.quota_bytes IS NULL OR a.bytes + item.size <= a.quota_bytes)
                AND (a.quota_messages IS NULL OR a.messages < a.quota_messages)
            RETURNING a.modseq, a.next_message - 1 INTO o_modseq, o_message;
            IF NOT FOUND THEN
                o_refused := 1 + EXISTS (SELECT FROM account_state a WHERE a.account_id = item.account)::int;
            END IF;
        END IF;
        IF o_refused = 0 THEN
            UPDATE mailbox b
            SET uidnext = b.uidnext + 1, messages = b.messages + 1, unseen = b.unseen + 1 - (item.flags & 1),
                deleted = b.deleted + (item.flags >> 3 & 1), bytes = b.bytes + item.size, highest_modseq = o_modseq
            WHERE b.account_id = item.account AND b.id = item.mailbox
            RETURNING b.uidnext - 1, b.uidvalidity INTO o_uid, o_uidvalidity;
            IF NOT FOUND THEN -- it may have been deleted while this waited for the account: known only now
                o_refused := 1;
                UPDATE account_state a
                SET modseq = a.modseq - 1, next_message = a.next_message - 1, messages = a.messages - 1,
                    bytes = a.bytes - item.size
                WHERE a.account_id = item.account;
            END IF;
        END IF;
        IF o_refused > 0 THEN
            o_uid := NULL; o_uidvalidity := NULL; o_message := NULL; o_modseq := NULL; o_thread := NULL;
            RETURN NEXT;
            CONTINUE;
        END IF;

        keys := m_keys[item.keys_from:item.keys_to];
        SELECT coalesce(min(t.thread_id), o_message) INTO o_thread
            FROM thread_key t WHERE t.account_id = item.account AND t.key = ANY(keys);
        INSERT INTO thread_key (account_id, key, thread_id)
            SELECT item.account, k, o_thread FROM unnest(keys) k ON CONFLICT DO NOTHING;
        r_job := array_append(r_job, job);
        r_mail := array_append(r_mail, item.mail);
        r_account := array_append(r_account, item.account);
        r_mailbox := array_append(r_mailbox, item.mailbox);
        r_flags := array_append(r_flags, item.flags);
        r_keywords := array_append(r_keywords, item.keywords);
        r_date := array_append(r_date, coalesce(item.internal_date, now()));
        r_trace_id := array_append(r_trace_id, item.trace_id);
        r_recipient := array_append(r_recipient, item.recipient);
        r_message := array_append(r_message, o_message);
        r_uid := array_append(r_uid, o_uid);
        r_modseq := array_append(r_modseq, o_modseq);
        r_thread := array_append(r_thread, o_thread);
        used_hashes := used_hashes || item.hash;
        RETURN NEXT;
    END LOOP;

    INSERT INTO message (account_id, id, blob, size, header_size, thread_id, created_modseq, received_at, sent_at,
        sent_on, has_attachment, base_subject, sort_keys, ancestry, preview, envelope, bodystructure, headers, parts,
        summary)
        SELECT r.account, r.message, m_hash[r.mail], m_size[r.mail], m_header_size[r.mail], r.thread, r.modseq, r.date,
            m_sent_at[r.mail], m_sent_on[r.mail], m_has_attachment[r.mail], m_base_subject[r.mail], m_sort_keys[r.mail],
            m_ancestry[r.mail], m_preview[r.mail], m_envelope[r.mail], m_bodystructure[r.mail], m_headers[r.mail],
            m_parts[r.mail], m_summary[r.mail]
        FROM unnest(r_account, r_message, r_mail, r_thread, r_modseq, r_date)
            AS r(account, message, mail, thread, modseq, date);
    INSERT INTO message_text (account_id, docno, from_text, to_text, cc_text, bcc_text, subject_text, body_at, text)
        SELECT r.account, r.message, m_from[r.mail], m_to[r.mail], m_cc[r.mail], m_bcc[r.mail], m_subject[r.mail],
            m_body_at[r.mail], m_text[r.mail]
        FROM unnest(r_account, r_message, r_mail) AS r(account, message, mail);
    INSERT INTO entry (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
        SELECT r.account, r.mailbox, r.uid, r.message, r.modseq, r.flags, string_to_array(r.keywords, ' '), r.date,
            m_size[r.mail]
        FROM unnest(r_account, r_mailbox, r_uid, r_message, r_modseq, r_flags, r_keywords, r_date, r_mail)
            AS r(account, mailbox, uid, message, modseq, flags, keywords, date, mail);

    -- In this order they are traced: what the protocol has to say of a job, then what became of its items.
    INSERT INTO trace_event (at, trace_id, step, account_id, outbound_id, sender, recipient, message_id, detail)
        SELECT t.at, t.trace_id, t.step, t.account, t.outbound, t.sender, t.recipient, t.message_id, t.detail
        FROM (
            SELECT e.job, 0 AS part, e.n, coalesce(e.at, now()) AS at, e.trace_id, e.step, e.account, e.outbound,
                e.sender, e.recipient, e.message_id, e.detail::jsonb AS detail
            FROM unnest(e_job, e_at, e_trace_id, e_step, e_account, e_outbound, e_sender, e_recipient, e_message_id,
                e_detail) WITH ORDINALITY AS e(job, at, trace_id, step, account, outbound, sender, recipient,
                message_id, detail, n)
            WHERE e.job = ANY(r_job)
            UNION ALL
            SELECT r.job, 1, r.n, now(), r.trace_id, 'stored', r.account, NULL, NULL, r.recipient,
                CASE WHEN r.job <> ALL(e_job) THEN m_message_id[r.mail] END, -- else the job's own step has it
                jsonb_build_object('mailbox', r.mailbox, 'uid', r.uid, 'email', r.message)
            FROM unnest(r_job, r_mail, r_account, r_mailbox, r_uid, r_message, r_trace_id, r_recipient)
                WITH ORDINALITY AS r(job, mail, account, mailbox, uid, message, trace_id, recipient, n)
            WHERE r.trace_id IS NOT NULL) AS t
        ORDER BY t.job, t.part, t.n;

    IF pg_column_size(m_data) < 2000000 THEN
        INSERT INTO blob (hash, size, data)
            SELECT b.hash, length(b.data), b.data FROM unnest(m_hash, m_data) AS b(hash, data)
            WHERE b.hash = ANY(used_hashes) ORDER BY b.hash
            ON CONFLICT (hash) DO UPDATE SET touched_at = now();
    ELSE -- as rows they would be written to the disk and read again, which costs more than to look each of them up
        INSERT INTO blob (hash, size, data)
            SELECT b.hash, m_size[b.mail], m_data[b.mail]
            FROM (SELECT m.hash, m.mail FROM unnest(m_hash) WITH ORDINALITY AS m(hash, mail)
                WHERE m.hash = ANY(used_hashes) ORDER BY m.hash) AS b
            ON CONFLICT (hash) DO UPDATE SET touched_at = now();
    END IF;
END
$append$;
