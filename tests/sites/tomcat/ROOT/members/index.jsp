<%@ page contentType="text/html;charset=UTF-8" %>
Welcome, <%= request.getRemoteUser() %>.
