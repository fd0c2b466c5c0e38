-- What storing needs locks for, in one place: room, numbers and thread of each message that arrived together. The
-- statement of `store.append` calls it and writes the rows. Jobs come in order and see what those before them used up of
-- a quota.
--
--   i_*  the items, grouped by job: which message (1-based) goes into which mailbox; of an atomic job all or none
--   m_*  the distinct messages (m_keys: thread keys of all, m_keys_from:m_keys_to of one)
--
-- One row per item in order: its numbers, or `o_refused` = 1 no such mailbox, 2 over quota.
-- Locks (DESIGN §5): accounts in ascending order, then mailboxes; the statement's blobs come after them.
CREATE OR REPLACE FUNCTION number_messages(
    i_job int[], i_atomic bool[], i_mail int[], i_account bigint[], i_mailbox bigint[], i_flags int[],
    m_size bigint[], m_keys_from int[], m_keys_to int[], m_keys bigint[]
) RETURNS TABLE (
    o_refused int, o_uid bigint, o_uidvalidity bigint, o_message bigint, o_modseq bigint, o_thread bigint
)
LANGUAGE plpgsql ROWS 10
-- Every statement looks up by key: planned once, whatever the sizes of the tables were at that moment.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $number$
DECLARE
    job int := -1;
    job_refused int;
    mail int;
    account bigint;
    octets bigint;
    keys bigint[];
BEGIN
    IF cardinality(i_job) > 1 THEN -- one alone is locked in this order anyway
        PERFORM FROM account_state a WHERE a.account_id = ANY(i_account) ORDER BY a.account_id FOR UPDATE;
        PERFORM FROM mailbox b JOIN unnest(i_account, i_mailbox) AS k(account_id, id) USING (account_id, id)
            ORDER BY b.account_id, b.id FOR UPDATE OF b;
    END IF;

    FOR item IN 1 .. cardinality(i_job) LOOP
        mail := i_mail[item];
        account := i_account[item];
        octets := m_size[mail];
        IF i_job[item] <> job THEN
            job := i_job[item];
            job_refused := 0;
            IF i_atomic[item] AND i_job[item + 1] = job THEN -- the only item of a job is refused by the UPDATE below
                SELECT x.refused INTO job_refused FROM (
                    SELECT i.n, CASE
                        WHEN b.id IS NULL THEN 1
                        WHEN a.bytes + sum(m_size[i.mail]) OVER (PARTITION BY i.account ORDER BY i.n) > a.quota_bytes
                            OR a.messages + count(*) OVER (PARTITION BY i.account ORDER BY i.n) > a.quota_messages
                            THEN 2 ELSE 0 END AS refused
                    FROM unnest(i_job, i_mail, i_account, i_mailbox) WITH ORDINALITY AS i(job, mail, account, mailbox, n)
                        LEFT JOIN account_state a ON a.account_id = i.account
                        LEFT JOIN mailbox b ON b.account_id = i.account AND b.id = i.mailbox
                    WHERE i.job = i_job[item]
                ) x WHERE x.refused > 0 ORDER BY x.n LIMIT 1;
                job_refused := coalesce(job_refused, 0);
            END IF;
        END IF;

        o_refused := job_refused;
        IF o_refused = 0 THEN
            UPDATE account_state a
            SET modseq = a.modseq + 1, next_message = a.next_message + 1, messages = a.messages + 1,
                bytes = a.bytes + octets
            WHERE a.account_id = account AND (a.quota_bytes IS NULL OR a.bytes + octets <= a.quota_bytes)
                AND (a.quota_messages IS NULL OR a.messages < a.quota_messages)
            RETURNING a.modseq, a.next_message - 1 INTO o_modseq, o_message;
            IF NOT FOUND THEN
                o_refused := 1 + EXISTS (SELECT FROM account_state a WHERE a.account_id = account)::int;
            END IF;
        END IF;
        IF o_refused = 0 THEN
            UPDATE mailbox b
            SET uidnext = b.uidnext + 1, messages = b.messages + 1, unseen = b.unseen + 1 - (i_flags[item] & 1),
                deleted = b.deleted + (i_flags[item] >> 3 & 1), bytes = b.bytes + octets,
                highest_modseq = o_modseq
            WHERE b.account_id = account AND b.id = i_mailbox[item]
            RETURNING b.uidnext - 1, b.uidvalidity INTO o_uid, o_uidvalidity;
            IF NOT FOUND THEN -- it may have been deleted while this waited for the account: known only now
                o_refused := 1;
                UPDATE account_state a
                SET modseq = a.modseq - 1, next_message = a.next_message - 1, messages = a.messages - 1,
                    bytes = a.bytes - octets
                WHERE a.account_id = account;
            END IF;
        END IF;
        IF o_refused > 0 THEN
            o_uid := NULL; o_uidvalidity := NULL; o_message := NULL; o_modseq := NULL; o_thread := NULL;
        ELSE
            keys := m_keys[m_keys_from[mail]:m_keys_to[mail]];
            SELECT coalesce(min(t.thread_id), o_message) INTO o_thread
                FROM thread_key t WHERE t.account_id = account AND t.key = ANY(keys);
            INSERT INTO thread_key (account_id, key, thread_id)
                SELECT account, k, o_thread FROM unnest(keys) k ON CONFLICT DO NOTHING;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$number$;
