"""Test task dispatcher."""

import pytest
from unittest.mock import patch, Mock

from agq.dispatcher import dispatch_task
from agq.config import get_queue_config


class TestDispatcher:
    """Tests for task dispatcher."""

    @patch('agq.dispatcher.get_queue_config')  # T-06
    @patch('agq.dispatcher.TaskExecutor')  # T-06
    def test_dispatch_thread(self, mock_executor, mock_config):
        """Test threading dispatch."""
        config = Mock()
        config.use_celery = False
        mock_config.return_value = config

        result = dispatch_task("task-123", 1, "profile-my-data")

        assert result["dispatch_method"] == "thread"
        assert result["task_id"] == "task-123"

    @patch('agq.dispatcher.get_queue_config')  # T-06
    @patch('agq.dispatcher.process_profile_task')  # T-06
    def test_dispatch_celery(self, mock_task, mock_config):
        """Test Celery dispatch."""
        config = Mock()
        config.use_celery = True
        mock_config.return_value = config

        mock_result = Mock()
        mock_result.id = "celery-task-id"
        mock_task.delay.return_value = mock_result
        mock_task.queue = "profile"

        result = dispatch_task("task-123", 1, "profile-my-data")

        assert result["dispatch_method"] == "celery"
        assert result["celery_task_id"] == "celery-task-id"
        assert result["queue"] == "profile"
