#include "poll.h"

#include "../../csrc/contract/error.h"

int test_polls;
bool test_interrupted;

ps3c_status ps3c_context_poll(ps3c_context *context)
{
    (void)context;
    test_polls++;
    return test_interrupted ? PS3C_ERROR_INTERRUPTED : PS3C_OK;
}
