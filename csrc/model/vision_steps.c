/* The steps of a run: for each chunk of images, low resolution and selection first, then one group of looks per step.
 */
#include "vision_plan.h"

#include "../run/pass.h"

static int64_t smallest(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t ps3c_vision_group(const ps3c_vision_plan *plan, int64_t look, int64_t images)
{
    const int64_t tokens = plan->look_tokens[look], asked = plan->request.looks_per_step;
    int64_t most = largest(plan->group_tokens / largest(tokens * images, 1), 1), count = 1;
    if (asked)
        most = smallest(most, asked);
    while (count < most && look + count < plan->looks && plan->look_tokens[look + count] == tokens)
        count++;
    return count;
}

int64_t ps3c_vision_last_images(const ps3c_vision_plan *plan)
{
    const int64_t rest = plan->request.batch % plan->chunk;
    return rest ? rest : plan->chunk;
}

void ps3c_vision_set_groups(ps3c_vision_plan *plan)
{
    for (int kind = 0; kind < 2; kind++) {
        const int64_t images = kind ? ps3c_vision_last_images(plan) : plan->chunk;
        plan->groups[kind] = 0;
        for (int64_t look = 0; look < plan->looks; look++)
            plan->look_entry[kind * plan->looks + look] = plan->look_first[look] * images;
        for (int64_t look = 0; look < plan->looks; look += ps3c_vision_group(plan, look, images))
            plan->group_first[kind * plan->looks + plan->groups[kind]++] = look;
    }
}

static int64_t chunks(const ps3c_vision_plan *plan) { return (plan->request.batch + plan->chunk - 1) / plan->chunk; }

int64_t ps3c_vision_steps(const ps3c_vision_plan *plan)
{
    return chunks(plan) + (chunks(plan) - 1) * plan->groups[0] + plan->groups[1];
}

ps3c_vision_step ps3c_vision_plan_step(const ps3c_vision_plan *plan, int64_t index)
{
    ps3c_vision_step step = {0};
    if (index < 0 || index >= ps3c_vision_steps(plan))
        return step;
    const int64_t whole = 1 + plan->groups[0], chunk = smallest(index / whole, chunks(plan) - 1);
    const int64_t group = index - chunk * whole - 1; /* -1: the chunk's first step */
    step.first_image = chunk * plan->chunk;
    step.images = smallest(plan->chunk, plan->request.batch - step.first_image);
    if (group < 0)
        return step;
    const int kind = chunk == chunks(plan) - 1;
    const int64_t *first = plan->group_first + kind * plan->looks;
    step.first_look = first[group];
    step.looks = (group + 1 < plan->groups[kind] ? first[group + 1] : plan->looks) - step.first_look;
    step.tokens = plan->look_tokens[step.first_look];
    return step;
}

/* If the last chunk is full, both variants are equal. */
const int64_t *ps3c_vision_look_entry(const ps3c_vision_plan *plan, int64_t images)
{
    return plan->look_entry + (images == plan->chunk ? 0 : plan->looks);
}

const int32_t *ps3c_vision_plan_rows(const ps3c_vision_plan *plan, int64_t index, const void *workspace)
{
    const ps3c_vision_step step = ps3c_vision_plan_step(plan, index);
    if (!step.looks)
        return NULL;
    return (const int32_t *)(ps3c_aligned_workspace((void *)(uintptr_t)workspace) + plan->at.row_of) +
           ps3c_vision_look_entry(plan, step.images)[step.first_look];
}
