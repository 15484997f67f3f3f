-- An example of Slurm's job_submit plugin for clusters that run rtdetr-slurm: what a profile only
-- says, this enforces, for whoever calls sbatch in whatever way.
--
--   slurm.conf:  JobSubmitPlugins=lua
--   this file:   beside slurm.conf, under this name; then `scontrol reconfigure`
--
-- Jobs of rtdetr-slurm carry a comment that begins with "rtdetr-slurm:". Never write another
-- comment over it: a job is known by it.

-- What such jobs may ask for; the `limits` of /etc/rtdetr-slurm/site.yaml, once more. nil: no limit.
local LIMITS = {
    partitions = { train = true, tensorrt = true },
    max_nodes = 8,
    max_minutes = 3 * 24 * 60,
}
-- Partitions whose jobs other jobs may preempt: there a job that cannot be requeued is lost.
local PREEMPTED = { ["train-low"] = true }

local MARK = "rtdetr-slurm:"

local function given(number)
    -- Slurm's "nothing said" is a number above all others.
    if number == nil or number >= slurm.NO_VAL then
        return nil
    end
    return number
end

local function wants_gpus(job)
    for _, name in ipairs({ "tres_per_node", "tres_per_job", "tres_per_task", "gres" }) do
        local asked = job[name]
        if type(asked) == "string" and asked:find("gpu", 1, true) then
            return true
        end
    end
    return false
end

local function is_ours(job)
    return job.comment ~= nil and job.comment:sub(1, #MARK) == MARK
end

local function missing(job)
    if LIMITS.partitions and (job.partition or "") == "" then
        return "say in which partition (--partition)"
    end
    if LIMITS.max_minutes and given(job.time_limit) == nil then
        return "say how long (--time), at most " .. LIMITS.max_minutes .. " minutes"
    end
    return nil
end

local function excess(job)
    for name in (job.partition or ""):gmatch("[^,]+") do
        if LIMITS.partitions and not LIMITS.partitions[name] then
            return "partition " .. name .. " is not for rtdetr-slurm"
        end
    end
    local nodes = given(job.min_nodes)
    if LIMITS.max_nodes and nodes and nodes > LIMITS.max_nodes then
        return "at most " .. LIMITS.max_nodes .. " nodes; this job asks for " .. nodes
    end
    local minutes = given(job.time_limit)
    if LIMITS.max_minutes and minutes and minutes > LIMITS.max_minutes then
        return "at most " .. LIMITS.max_minutes .. " minutes; this job asks for " .. minutes
    end
    return nil
end

function slurm_job_submit(job, partitions, uid)
    local reason = is_ours(job) and (missing(job) or excess(job))
    if reason then
        slurm.log_user("job_submit: " .. reason)
        return slurm.ERROR
    end
    if PREEMPTED[job.partition or ""] and wants_gpus(job) and job.requeue == 0 then
        slurm.log_user("job_submit: jobs in " .. job.partition .. " are preempted: allow --requeue")
        return slurm.ERROR
    end
    return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, uid)
    -- `scontrol update` must not do what sbatch was refused; the comment stays what it is.
    if is_ours(record) then
        if job.comment and job.comment ~= record.comment then
            slurm.log_user("job_submit: the comment of an rtdetr-slurm job is what it is known by")
            return slurm.ERROR
        end
        local reason = uid ~= 0 and excess(job)
        if reason then
            slurm.log_user("job_submit: " .. reason)
            return slurm.ERROR
        end
    end
    return slurm.SUCCESS
end

return slurm.SUCCESS
