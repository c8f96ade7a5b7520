/* Fuzz target: the arithmetic of vision plans. No run: most inputs have sizes that no machine has, up to the ends of the
 * legal ranges. */
#include "vision.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = fuzz_begin(data, size);
    fuzz_vision in = {0};
    ps3c_vision_plan *plan = NULL;
    ps3c_context *context = fuzz_context(&f);
    f.extreme = f.extreme ? f.extreme : fuzz_flag(&f) ? 24 : 8;
    fuzz_read_config(&f, &in.config);
    fuzz_read_request(&f, &in);
    const ps3c_status status = ps3c_vision_plan_create(context, &in.config, &in.request, &plan);
    FUZZ_CHECK((status == PS3C_OK) == (plan != NULL), "status %d", (int)status);
    if (plan) {
        ps3c_vision_plan_info info;
        ps3c_vision_plan_describe(plan, &info);
        fuzz_check_plan(&in, plan, &info);
    } else {
        fuzz_check_failure(context, status);
    }
    ps3c_vision_plan_free(plan);
    ps3c_context_free(context);
    fuzz_end(&f);
    return 0;
}
